"""Reads the questions of the project's lm-evaluation-harness tasks, as benchmarks that examples must not
overlap.

Data sets of the hub are copied to the object store, and eval reads the copies. So the models are asked
exactly the questions that the examples were compared with, and eval needs no hub.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import canonical_json
from tunewheel_outputs.lm_eval_metric import PREFIX
from tunewheel_outputs.lm_eval_task import (
    MAX_QUESTIONS,
    HubData,
    RefusedTask,
    TaskSource,
    check_figures,
    find_pinned,
)
from tunewheel_runtime.store import ObjectStore

from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
from tunewheel_curate.replay.sources import load_split


async def read_tasks(
    spec: ProjectSpec, store: ObjectStore, allowed: AllowedSources
) -> tuple[BenchmarkTexts, ...]:
    """Return the questions of each task that ``spec`` names.

    Raises:
        InvalidSpec: a task does not exist, has another hash than the spec says, is refused, or lacks a metric
            that the criteria name. The field names the task.
        SourceAway, TransientError: the hub or the store is away.
    """
    found: list[BenchmarkTexts] = []
    for number, task in enumerate(spec.evaluation.lm_eval):
        place = f"evaluation.lm_eval.{number}"
        task.check_place(f"{place}.path")
        try:
            source = find_pinned(task, await store.read_folder(task.path))
            check_figures([one.metric for one in spec.criteria], source)
            read = source.with_data(await _data(source, store, allowed, place))
        except RefusedTask as error:
            raise error.in_spec(place) from error
        found.append(BenchmarkTexts(f"{PREFIX}{task.task}", read.prompts))
    return tuple(found)


async def _data(
    source: TaskSource, store: ObjectStore, allowed: AllowedSources, place: str
) -> dict[str, bytes]:
    if source.hub is None:
        return dict(source.files)
    data: dict[str, bytes] = {}
    for split in source.hub_splits:
        path = source.hub.stored(split)
        kept = await store.read(path)
        if kept is None:
            fetched = await asyncio.to_thread(_fetched, source.hub, split, allowed, f"{place}.path")
            kept = await store.first(path, fetched)
        data[split] = kept
    return data


def _fetched(hub: HubData, split: str, allowed: AllowedSources, field: str) -> bytes:
    """Return a split as JSON Lines. Raises InvalidSpec and SourceAway."""
    try:
        if Path(hub.path).exists():  # datasets prefers a local folder to the hub
            allowed.check_source(hub.path)
        else:
            allowed.check_hub()
        with tempfile.TemporaryDirectory(prefix="lm-eval-") as cache:
            rows = load_split(
                hub.path, split, name=hub.name, revision=hub.revision, allowed=allowed, cache=cache
            )
            if len(rows) > MAX_QUESTIONS:
                raise InvalidSpec(
                    field=field,
                    reason=f"{split} of {hub.path} has over {MAX_QUESTIONS:,} rows; choose a smaller one",
                )
            return b"".join(canonical_json(dict(row)) + b"\n" for row in rows)
    except InvalidSpec as error:
        raise InvalidSpec(field=field, reason=error.reason) from error
    except (TypeError, ValueError) as error:
        reason = f"{split} of {hub.path} holds values that JSON cannot ({error}); choose another data set"
        raise InvalidSpec(field=field, reason=reason) from error
