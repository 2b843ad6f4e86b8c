"""Carries out the order of a build: reads the records, curates them, and writes the version's files."""

from __future__ import annotations

import asyncio
from io import BytesIO
from pathlib import Path

import polars as pl
from tunewheel_contracts.errors import InvalidEvent, InvalidSpec, TransientError
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.formats.dataset import DatasetManifest, ExpectationResult
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_curate.builds.lm_eval_tasks import read_tasks
from tunewheel_curate.builds.order import BuildOrder, BuildOutcome
from tunewheel_curate.builds.pinned_inputs import pin_inputs, pinned_replay, pinned_retired
from tunewheel_curate.errors import SourceAway
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts, read_benchmarks, regression_benchmark
from tunewheel_curate.holdout.memory import HoldoutMemory
from tunewheel_curate.inputs import Inputs, OpenIndex, open_for_build
from tunewheel_curate.outcomes import OutcomeCache
from tunewheel_curate.pipeline import Build, curate, refused
from tunewheel_curate.quarantine.listing import write_quarantine
from tunewheel_curate.records.selection import erased, select
from tunewheel_curate.records.table import RecordTable, store_of
from tunewheel_curate.similarity.near_cache import NearCache
from tunewheel_curate.stage import DOCUMENT
from tunewheel_curate.versions import suite
from tunewheel_curate.versions.changes import Composition, changes_between
from tunewheel_curate.versions.versioning import (
    DATA_DOCS,
    MANIFEST,
    name_of,
    rows_sha256,
    under_pseudonyms,
    with_origin,
    write_version,
)


def run_build(order: BuildOrder) -> BuildOutcome:
    """Read the records, curate them, and write the version's files below ``order.folder``."""
    spec, folder = order.spec, Path(order.folder)
    try:
        made = asyncio.run(_curated(order, _records(order)))
    except SourceAway as error:
        return BuildOutcome(away=str(error))
    except TransientError as error:
        return BuildOutcome(behind=str(error))
    made = under_pseudonyms(made, _names(order))
    rows = rows_sha256(made.split, made.preferences, made.negatives)
    outcome = BuildOutcome(
        rows_sha256=rows, counts=made.counts, funnel=made.funnel, rejections=made.rejections
    )
    if made.rejections:
        return outcome
    try:
        results = _checked(order, made, rows)
    except InvalidSpec as error:
        return outcome.model_copy(update={"rejections": (str(error),)})
    except TransientError as error:
        return BuildOutcome(behind=str(error))
    if broken := suite.unmet(results, "reject"):
        return outcome.model_copy(update={"rejections": tuple(f"dataset: {one}" for one in broken)})
    manifest = write_version(
        made, spec, folder, expectations=results, previous=order.previous, published=order.published
    )
    return outcome.model_copy(update={"manifest": manifest})


def _checked(order: BuildOrder, made: Build, rows: str) -> tuple[ExpectationResult, ...]:
    """Check what is expected of a version, and write the pages about it.

    Raises:
        InvalidSpec: an expectation of the spec cannot be checked.
        TransientError: the store is away.
    """
    spec, dataset = order.spec, order.spec.dataset
    sides = (with_origin(side, made.lineage) for side in (made.split.train, made.split.holdout))
    before, on_change = asyncio.run(_before(order)), dataset.changes
    train, holdout = sides
    now = Composition(suite.observed(train, holdout), made.funnel).without(made.requests)
    changes = () if before is None else changes_between(before[1].without(made.requests), now)
    if before is not None and (before[0].task, before[0].dataset) != (spec.task, dataset):
        on_change = "warn"
    return suite.check_expectations(
        suite.observed(train, holdout, made.pinned.tokens) if dataset.expectations else now.rows,
        changes,
        spec,
        on_change=on_change,
        dataset_id=name_of(made, spec, rows, previous=order.previous, published=order.published),
        folder=Path(order.folder) / DATA_DOCS,
    )


async def _before(order: BuildOrder) -> tuple[ProjectSpec, Composition] | None:
    """Return the spec and the composition of the version before; None: there is none, or its rows are
    erased."""

    if order.previous is None:
        return None
    store = ObjectStore(store_of(order.table_url))
    try:
        data = await store.read(f"datasets/{order.previous}/{MANIFEST}")
        manifest = decode_data(DatasetManifest, data or b"")
        train, holdout = (
            pl.read_parquet(BytesIO(data))
            for data in [await store.get(ref) for ref in (manifest.train, manifest.holdout)]
        )
    except (ArtifactMissing, CorruptArtifact, InvalidEvent):
        return None
    if "source" not in train.columns or "source" not in holdout.columns:
        return None  # of a release that did not write the kinds of sources
    return manifest.spec, Composition(suite.observed(train, holdout), manifest.funnel)


def _records(order: BuildOrder) -> pl.DataFrame:
    rows = RecordTable(order.table_url).read(order.spec.project, order.records_upto)
    # Erased rows may still be in the table.
    return rows.filter(~erased(order.erasures))


async def _curated(order: BuildOrder, records: pl.DataFrame) -> Build:
    """Curate ``records`` with the build's other inputs, which are read from the store.

    Raises:
        TransientError: the store is away.
        SourceAway: a source that the spec names does not answer.
    """
    spec, store = order.spec, ObjectStore(store_of(order.table_url))
    selected = select(records, order.withdrawals, ratings=spec.dataset.ratings, judged=order.judged)
    regression = regression_benchmark(Path(order.regression_set) if order.regression_set else None)
    try:
        declared = await read_benchmarks(spec.dataset.benchmarks, store)
        benchmarks = (regression, *declared, *await read_tasks(spec, store, order.allowed))
        inputs = await _inputs(order, selected.set_aside(DOCUMENT), benchmarks, store)
    except (InvalidSpec, ArtifactMissing, CorruptArtifact) as error:
        reason = str(error) if isinstance(error, InvalidSpec) else f"store: {error}; restore it"
        return refused(selected.distinct, reason)
    near, rows = NearCache(store), OutcomeCache(store)
    earlier, outcomes = await near.read(spec.project), await rows.read(spec.project)
    made = curate(selected, spec, inputs, earlier=earlier, outcomes=outcomes)
    await near.write(spec.project, made.near_index, earlier=earlier)
    await rows.write(spec.project, made.outcomes, earlier=outcomes)
    await write_quarantine(store, spec.project, made.waiting, order.records_upto)
    return made


async def _inputs(
    order: BuildOrder, documents: pl.DataFrame, benchmarks: tuple[BenchmarkTexts, ...], store: ObjectStore
) -> Inputs:
    parts = {"records_upto", "withdrawals", "erasures", "previous", "index"}
    asked = order.model_dump(mode="json", include=parts)
    build_id = content_id("build", asked | {"spec_sha256": order.spec.sha256})
    replay, secret = order.spec.dataset.replay, order.pseudonym_secret.get_secret_value()
    groups, rows = await pinned_retired(store, build_id, order.spec, previous=order.previous)
    return Inputs(
        benchmarks=benchmarks,
        withdrawals=order.withdrawals,
        judged=order.judged,
        memory=_memory(order).retiring(groups, rows),
        replay=await pinned_replay(store, build_id, replay, order.allowed) if replay is not None else None,
        pinned=await pin_inputs(store, build_id, order.spec, documents, allowed=order.allowed, secret=secret),
        index=await _index(order, store),
    )


async def _index(order: BuildOrder, store: ObjectStore) -> OpenIndex | None:
    if order.index is None or order.spec.retrieval is None:
        return None
    return await open_for_build(store, order.index, order.spec.retrieval.embedding)


def _memory(order: BuildOrder) -> HoldoutMemory:
    names = _names(order)
    if order.memory is None:
        return HoldoutMemory(names=names)
    return HoldoutMemory.read(Path(order.memory).read_bytes(), names)


def _names(order: BuildOrder) -> Pseudonyms:
    return Pseudonyms(order.spec.project, order.pseudonym_secret.get_secret_value())
