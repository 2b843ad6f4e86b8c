"""What is expected of a dataset version beside curation's own checks, by Great Expectations and its Data
Docs.

There are two kinds of expectations: those of the project (``dataset.expectations``) about the columns of the
examples, and those that follow from the version before (``changes.py``) about the figures of this one. Great
Expectations writes dates and random ids into its pages. Both are replaced, so that the pages of a version
always have the same bytes. The pages hold no texts of examples.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.data_quality import EXPECTATION_COLUMNS, ExpectationAction
from tunewheel_contracts.formats.dataset import ExampleFormat, ExpectationResult
from tunewheel_contracts.formats.spec import ProjectSpec

from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.versions.changes import Change, in_words

_RUN_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_REMOTE_LOGO = re.compile(r"https://great-expectations-web-assets\.s3\.[^\"')]*?\.png(?:\?d=[\w.]+)?")
_CLOCK = re.compile(r"\b\d{8}T\d{6}\.\d{6}Z")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_UNUSED = ("static/fonts", "static/images/validation_failed_unexpected_values.gif",
           "static/images/iterative-dev-loop.png", "static/images/glossary_scroller.gif")  # fmt: skip
_WITHOUT_TEXTS = {"result_format": "BASIC", "partial_unexpected_count": 0}


def observed(train: pl.DataFrame, holdout: pl.DataFrame, tokens: Tokens | None = None) -> pl.DataFrame:
    """Return the examples of both sides (``EXAMPLE_SCHEMA`` and ``source``), without general data, in the
    columns ``EXPECTATION_COLUMNS``. Without ``tokens`` the column ``tokens`` is null."""
    both = pl.concat(
        [train.with_columns(split=pl.lit("train")), holdout.with_columns(split=pl.lit("holdout"))],
        how="diagonal",
    ).filter(pl.col("format") != ExampleFormat.REPLAY.value)
    messages = both["messages"].to_list()
    asked = ["\n\n".join(turn["content"] for turn in turns[1:-1]) for turns in messages]
    texts = [[turn["content"] for turn in turns] for turns in messages]
    sizes = [None] * len(texts) if tokens is None else tokens.conversation_sizes(texts)
    answers = [turns[-1] for turns in texts]
    return both.with_columns(
        pl.Series("question", asked, dtype=pl.String),
        pl.Series("answer", answers, dtype=pl.String),
        pl.Series("tokens", sizes, dtype=pl.Int64),
        pl.Series("question_words", [len(text.split()) for text in asked], dtype=pl.Int64),
        pl.Series("answer_words", [len(text.split()) for text in answers], dtype=pl.Int64),
    ).select(sorted(EXPECTATION_COLUMNS))


def check_expectations(
    examples: pl.DataFrame,
    changes: Sequence[Change],
    spec: ProjectSpec,
    *,
    on_change: ExpectationAction,
    dataset_id: str,
    folder: Path,
) -> tuple[ExpectationResult, ...]:
    """Check the project's expectations about the ``examples`` (``observed``), and the ``changes`` since the
    version before, which lead to ``on_change``. Write Data Docs below ``folder`` if there is anything to
    check.

    Raises:
        InvalidSpec: an expectation of the project cannot be checked.
    """
    own, figures = spec.dataset.expectations, in_words(changes)
    suites: dict[str, tuple[list[Any], pl.DataFrame]] = {}
    if own:
        suites["project"] = _expectations(spec), examples
    if changes:
        now = pl.DataFrame({one.figure: [one.now] for one in changes})
        suites["version_before"] = [_unchanged(one) for one in changes], now
    if not suites:
        return ()
    found = _run(suites, dataset_id, folder)
    checked = [
        ExpectationResult(
            expectation=f"{one.type} {json.dumps(one.kwargs, sort_keys=True)}",
            by="project",
            met=result.success,
            observed=_observed(result, f"dataset.expectations.{number}"),
            action=one.action,
        )
        for number, (one, result) in enumerate(zip(own, found.get("project", ()), strict=True))
    ]
    return (*checked, *(
        ExpectationResult(
            expectation=one.figure, by="version_before", met=result.success, observed=figures[one.figure],
            action=on_change,
        )
        for one, result in zip(changes, found.get("version_before", ()), strict=True)
    ))  # fmt: skip


def unmet(results: Sequence[ExpectationResult], action: ExpectationAction) -> tuple[str, ...]:
    """Return in words which expectations with this ``action`` are not met."""
    return tuple(
        f"{one.expectation}: {one.observed}" for one in results if not one.met and one.action == action
    )


def _expectations(spec: ProjectSpec) -> list[Any]:
    from great_expectations.expectations.registry import get_expectation_impl

    made: list[Any] = []
    for number, one in enumerate(spec.dataset.expectations):
        try:
            kwargs: dict[str, Any] = one.kwargs
            made.append(get_expectation_impl(one.type)(**kwargs))
        except (ValueError, TypeError) as error:
            field = f"dataset.expectations.{number}.kwargs"
            raise InvalidSpec(field=field, reason=f"do not fit {one.type}: {error}") from error
    return made


def _unchanged(change: Change) -> Any:
    import great_expectations.expectations

    gxe: Any = great_expectations.expectations
    return gxe.ExpectColumnMeanToBeBetween(column=change.figure, min_value=change.low, max_value=change.high)


def _run(
    suites: dict[str, tuple[list[Any], pl.DataFrame]], dataset_id: str, folder: Path
) -> dict[str, list[Any]]:
    """Run the expectations of each suite on its frame and write the pages. Return the results in order."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx
    import pandas
    from great_expectations.core.run_identifier import RunIdentifier

    context = gx.get_context(mode="ephemeral")
    _remove_default_site(context)
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    site: Any = {
        "class_name": "SiteBuilder",
        "show_how_to_buttons": False,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        "store_backend": {
            "class_name": "TupleFilesystemStoreBackend", "base_directory": str(folder.resolve()),
        },
    }  # fmt: skip
    context.add_data_docs_site(site_name="docs", site_config=site)
    source, results = context.data_sources.add_pandas("curate"), dict[str, list[Any]]()
    for name, (expectations, frame) in suites.items():
        asset = source.add_dataframe_asset(f"{dataset_id}-{name}")
        batch = asset.add_batch_definition_whole_dataframe("version")
        suite = context.suites.add(gx.ExpectationSuite(name=name, expectations=expectations))
        definition = gx.ValidationDefinition(name=name, data=batch, suite=suite)
        validation = context.validation_definitions.add(definition)
        checkpoint: Any = gx.Checkpoint(
            name=name, validation_definitions=[validation], result_format=_WITHOUT_TEXTS
        )
        outcome = context.checkpoints.add(checkpoint).run(
            batch_parameters={"dataframe": pandas.DataFrame(frame.to_dict(as_series=False))},
            run_id=RunIdentifier(run_name=dataset_id, run_time=_RUN_TIME),
        )
        (result,) = outcome.run_results.values()
        checked: list[Any] = list(result.results)
        by_id = {one.expectation_config.id: one for one in checked}
        results[name] = [by_id[one.id] for one in suite.expectations]
    context.build_data_docs(site_names=["docs"])
    _settle(folder, dataset_id)
    return results


def _observed(result: Any, field: str) -> str:
    """Return in words what an expectation found.

    Raises:
        InvalidSpec: it could not be checked.
    """
    raised: dict[str, Any] = result.exception_info or {}
    if raised.get("raised_exception", bool(raised)):  # else one of each metric, and no flag
        first = raised if "exception_message" in raised else next(iter(raised.values()))
        raise InvalidSpec(field=field, reason=f"cannot be checked: {first['exception_message']}")
    found: dict[str, Any] = result.result
    if "unexpected_count" in found:
        return f"{found['unexpected_count']} of {found['element_count']} rows are otherwise"
    return str(found.get("observed_value", ""))[:200]


def _remove_default_site(context: Any) -> None:
    """Remove the context's default docs site, which would leave a temporary folder behind."""
    for name, config in dict(context.variables.data_docs_sites).items():
        shutil.rmtree(config["store_backend"]["base_directory"], ignore_errors=True)
        context.delete_data_docs_site(name)


def _settle(folder: Path, dataset_id: str) -> None:
    """Remove dates, random ids and unused files from the pages."""
    for name in _UNUSED:
        target = folder / name
        shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
    namespace = uuid.uuid5(uuid.NAMESPACE_URL, dataset_id)
    for page in sorted(folder.rglob("*.html")):
        logo = "../" * (len(page.relative_to(folder).parts) - 1) + "static/images/logo-long.png"
        text = _REMOTE_LOGO.sub(logo, page.read_text(encoding="utf-8"))
        text = _CLOCK.sub(_RUN_TIME.strftime("%Y%m%dT%H%M%S.%fZ"), text)
        names: dict[str, str] = {}
        for found in _UUID.findall(text):
            names.setdefault(found, str(uuid.uuid5(namespace, str(len(names)))))
        page.write_text(_UUID.sub(lambda m, n=names: n[m.group()], text), encoding="utf-8")
