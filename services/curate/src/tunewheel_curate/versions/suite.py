"""The Great Expectations suite of a dataset version, and its Data Docs.

Curation already enforces all of this row by row. The suite is an independent second check, in the form that
data teams read. Great Expectations writes dates and random ids into its pages. Both are replaced, so that the
pages of a version always have the same bytes.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from tunewheel_contracts.formats.dataset import ExampleFormat
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_outputs.labels import labels_in_schema
from tunewheel_outputs.rules import rule_complaints
from tunewheel_outputs.schema import SchemaCheck
from tunewheel_redaction.redaction import Redactor

from tunewheel_curate.examples.answer_shape import words_of
from tunewheel_curate.examples.tokens import Tokens
from tunewheel_curate.holdout.splitting import Split

NO_LABEL = ""
"""The label in this frame of rows that are no answers, such as passages of documents."""
LOOKED_AT = 10_000
"""How many examples are searched for personal data. The search costs more than all other checks."""


def observed(split: Split, spec: ProjectSpec, tokens: Tokens) -> pl.DataFrame:
    """Return the examples of both sides, without general data, in the columns that the suite names."""
    both = pl.concat(
        [
            split.train.with_columns(pl.lit("train").alias("split")),
            split.holdout.with_columns(pl.lit("holdout").alias("split")),
        ]
    )
    both = both.filter(pl.col("format") != ExampleFormat.REPLAY.value)
    messages = both["messages"].to_list()
    answers = both["format"] == ExampleFormat.ANSWER.value
    asked = pl.Series(
        "user", ["\n\n".join(turn["content"] for turn in turns[1:-1]) for turns in messages], dtype=pl.String
    )
    said = pl.Series("assistant", [turns[-1]["content"] for turns in messages], dtype=pl.String)
    sizes = tokens.conversation_sizes([[turn["content"] for turn in turns] for turns in messages])
    return both.select(
        "example_id",
        asked,
        # Questions of answers must be distinct; the same question about two documents is allowed.
        pl.when(pl.lit(answers)).then(pl.lit(asked)).otherwise("example_id").alias("question"),
        said,
        _schema_violations(said, answers, spec).alias("schema_violations"),
        _rule_violations(asked, said, answers, spec).alias("rule_violations"),
        _personal_data(both["example_id"], asked, said, both["group"], spec).alias("personal_data"),
        pl.Series("tokens", sizes, dtype=pl.Int64),
        # Only answers carry a label, so the share of unlabelled rows is computed over answers.
        pl.when(pl.lit(answers)).then("label").otherwise(pl.lit(NO_LABEL)).alias("label"),
        "group",
        "split",
        pl.col("split").n_unique().over("group").cast(pl.Int64).alias("splits_of_group"),
    )


def _schema_violations(said: pl.Series, answers: pl.Series, spec: ProjectSpec) -> pl.Series:
    if spec.task.output_schema is None:
        return pl.repeat(0, len(said), dtype=pl.Int64, eager=True)
    # Great Expectations' own JSON Schema expectation checks the schema again for every row: 4 ms each.
    schema = SchemaCheck(spec.task.output_schema)
    counts = [schema.errors(text) if check else 0 for text, check in zip(said, answers, strict=True)]
    return pl.Series(counts, dtype=pl.Int64)


def _rule_violations(asked: pl.Series, said: pl.Series, answers: pl.Series, spec: ProjectSpec) -> pl.Series:
    if not spec.task.output_rules:
        return pl.repeat(0, len(said), dtype=pl.Int64, eager=True)
    complaints = rule_complaints(spec.task.output_rules, said.to_list(), asked.to_list())
    broken = pl.Series([any(several) for several in zip(*complaints, strict=True)], dtype=pl.Boolean)
    return (broken & answers).cast(pl.Int64)


def _personal_data(
    names: pl.Series, asked: pl.Series, said: pl.Series, groups: pl.Series, spec: ProjectSpec
) -> pl.Series:
    """Return for each example whether a pattern still finds personal data. Placeholders do not count. Named
    entities are not searched: what a pipeline takes for a name depends on the text around it.

    Only the ``LOOKED_AT`` examples with the smallest ids are searched; ids are hashes, so this is a random
    sample. The others are null.
    """
    policy = spec.dataset.pii
    nothing = pl.repeat(None, len(said), dtype=pl.Int64, eager=True)
    if policy.action == "keep":
        return nothing
    looked_at = (names.rank("ordinal") <= LOOKED_AT).arg_true()
    placeholder = f"<(?:{'|'.join(policy.placeholders)})(?:_[0-9a-f]+)?>"
    asked, said = (texts.gather(looked_at).str.replace_all(placeholder, "<>") for texts in (asked, said))
    own_words = words_of(spec.task.output_schema)
    redactor = Redactor(policy.model_copy(update={"named_entities": None}), own_words=own_words)
    groups = groups.gather(looked_at)
    left = redactor.clean(asked, groups) != asked
    left |= redactor.clean_answers(said, groups) != said
    return nothing.scatter(looked_at, left.cast(pl.Int64))


CLEAN = 0.99
"""The share of examples in which the recognisers must find no personal data."""
_RUN_TIME = datetime(2000, 1, 1, tzinfo=UTC)
_REMOTE_LOGO = re.compile(r"https://great-expectations-web-assets\.s3\.[^\"')]*?\.png(?:\?d=[\w.]+)?")
_CLOCK = re.compile(r"\b\d{8}T\d{6}\.\d{6}Z")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")
_UNUSED = ("static/fonts", "static/images/validation_failed_unexpected_values.gif",
           "static/images/iterative-dev-loop.png", "static/images/glossary_scroller.gif")  # fmt: skip


def run_suite(split: Split, spec: ProjectSpec, dataset_id: str, folder: Path, *, tokens: Tokens) -> list[str]:
    """Validate a version and write Data Docs below ``folder``; return the failed expectations."""
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
    asset = context.data_sources.add_pandas("curate").add_dataframe_asset(dataset_id)
    batch = asset.add_batch_definition_whole_dataframe("version")
    suite = context.suites.add(gx.ExpectationSuite(name="dataset"))
    for expectation in _expectations(spec):
        suite.add_expectation(expectation)
    validation = context.validation_definitions.add(
        gx.ValidationDefinition(name="version", data=batch, suite=suite)
    )
    checkpoint = context.checkpoints.add(gx.Checkpoint(name="version", validation_definitions=[validation]))
    outcome = checkpoint.run(
        batch_parameters={
            "dataframe": pandas.DataFrame(observed(split, spec, tokens).to_dict(as_series=False))
        },
        run_id=RunIdentifier(run_name=dataset_id, run_time=_RUN_TIME),
    )
    context.build_data_docs(site_names=["docs"])
    _settle(folder, dataset_id)
    return [failure for result in outcome.run_results.values() for failure in _failures(result)]


def _remove_default_site(context: Any) -> None:
    """Remove the context's default docs site, which would leave a temporary folder behind."""
    for name, config in dict(context.variables.data_docs_sites).items():
        shutil.rmtree(config["store_backend"]["base_directory"], ignore_errors=True)
        context.delete_data_docs_site(name)


def _expectations(spec: ProjectSpec) -> list[Any]:
    import great_expectations.expectations

    gxe: Any = great_expectations.expectations
    expectations: list[Any] = [
        gxe.ExpectTableRowCountToBeBetween(min_value=spec.dataset.min_examples),
        gxe.ExpectColumnValuesToBeUnique(column="example_id"),
        gxe.ExpectColumnValuesToBeUnique(column="question"),
        gxe.ExpectColumnValueLengthsToBeBetween(column="user", min_value=spec.dataset.min_characters),
        gxe.ExpectColumnValueLengthsToBeBetween(column="assistant", min_value=1),
        gxe.ExpectColumnValuesToBeBetween(
            column="tokens", min_value=1, max_value=spec.dataset.max_tokens
        ),
        gxe.ExpectColumnDistinctValuesToEqualSet(column="split", value_set=["train", "holdout"]),
        gxe.ExpectColumnMaxToBeBetween(column="splits_of_group", min_value=1, max_value=1),
    ]  # fmt: skip
    if spec.task.output_schema is not None:
        expectations.append(
            gxe.ExpectColumnMaxToBeBetween(column="schema_violations", min_value=0, max_value=0)
        )
    if spec.task.label_field is not None and spec.task.output_schema is not None:
        expectations.append(gxe.ExpectColumnValuesToNotBeNull(column="label", mostly=0.99))
    if labels := labels_in_schema(spec.task):
        expectations.append(gxe.ExpectColumnValuesToBeInSet(column="label", value_set=[*labels, NO_LABEL]))
    if spec.task.output_rules:
        expectations.append(
            gxe.ExpectColumnMaxToBeBetween(column="rule_violations", min_value=0, max_value=0)
        )
    if spec.dataset.pii.action != "keep":
        # Joined texts may look like a number to a recogniser, so one example in a hundred may match.
        expectations.append(
            gxe.ExpectColumnValuesToBeBetween(column="personal_data", max_value=0, mostly=CLEAN)
        )
    return expectations


def _failures(result: Any) -> list[str]:
    return [
        f"{r.expectation_config.kwargs.get('column', 'table')}: {r.expectation_config.type} failed"
        for r in result.results
        if not r.success
    ]


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
