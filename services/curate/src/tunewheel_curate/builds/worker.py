"""The worker process that runs builds: ``python -m tunewheel_curate.builds.worker``.

The worker loads the libraries of a build once, which takes ten seconds of a processor. Then it reads
``BuildOrder``s from stdin, a line of JSON each. It forks for each order. The fork writes the version's files
to the order's folder, answers with a ``BuildOutcome`` (a line of JSON on stdout) and exits, which frees its
memory. The service keeps stdin open. When stdin closes, the service is gone, and worker and fork exit too.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import os
import select
import shutil
import sys
import threading
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

from pydantic import Field, SecretStr, field_serializer
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.errors import InvalidSpec, TransientError
from tunewheel_contracts.fields import ArtifactRef, Frozen
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import (
    DatasetCounts,
    DatasetManifest,
    ExpectationResult,
    FunnelStage,
    RecordsUpto,
)
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.judgements import NOBODY_JUDGED, Judged
from tunewheel_contracts.withdrawals import Withdrawal
from tunewheel_runtime.worker_spans import worker_span

from tunewheel_curate.errors import SourceAway

if TYPE_CHECKING:
    import polars as pl
    from tunewheel_contracts.pseudonyms import Pseudonyms
    from tunewheel_runtime.store import ObjectStore

    from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts
    from tunewheel_curate.holdout.memory import HoldoutMemory
    from tunewheel_curate.inputs import Inputs, OpenIndex
    from tunewheel_curate.pipeline import Build
    from tunewheel_curate.versions.changes import Composition


SCRATCH_PREFIX = "tunewheel-curate-"
"""The name prefix of the temporary folder that contains the order's folder."""

TAKEN = b"taken\n"
"""The line that says that the worker has read the order. A failure before this line is not the build's
fault."""

NEEDED = ("similarity.near_cache", "pipeline", "records.table", "versions.suite", "versions.versioning")
"""The modules of curate that a build imports. The worker imports them ahead, because that takes seconds."""


class BuildOrder(Frozen):
    """What to build, from what, and where to put it."""

    table_url: str
    spec: ProjectSpec
    records_upto: RecordsUpto
    folder: str
    regression_set: str | None = None
    """Path of eval's regression set; None: the set that comes with Tunewheel."""
    withdrawals: tuple[Withdrawal, ...] = ()
    judged: Judged = NOBODY_JUDGED
    erasures: tuple[Erasure, ...] = ()
    previous: str | None = None
    """The ``dataset_id`` of the project's previous version."""
    published: tuple[str, ...] = ()
    """The ``dataset_id`` of every earlier version of the project."""
    memory: str | None = None
    """Path of the file with the previous version's memory of what was held out."""
    pseudonym_secret: SecretStr = SecretStr("")
    """The key of pseudonyms. Empty: pseudonyms are plain hashes, which anybody can compute."""
    allowed: AllowedSources = AllowedSources()
    """The hosts and folders that the spec may name."""
    index: Annotated[ArtifactRef | None, Field(exclude_if=lambda ref: ref is None)] = None
    """The manifest of the index version that passages are taken from; None: the version gets no passages."""
    trace: dict[str, str] = {}
    """The trace headers of the request."""

    @field_serializer("pseudonym_secret", when_used="json")
    def _for_the_worker(self, secret: SecretStr) -> str:
        return secret.get_secret_value()


class BuildOutcome(Frozen):
    """The result of a build. ``manifest`` is None for one of three reasons: the records make no dataset
    (``rejections``); the table lacks the last records or the store is away (``behind``); a source that the
    project names does not answer (``away``)."""

    manifest: DatasetManifest | None = None
    rows_sha256: str = ""
    counts: DatasetCounts | None = None
    funnel: tuple[FunnelStage, ...] = ()
    rejections: tuple[str, ...] = ()
    behind: str | None = None
    away: str | None = None


def run_build(order: BuildOrder) -> BuildOutcome:
    """Read the records, curate them, and write the version's files below ``order.folder``."""
    from tunewheel_curate.versions.suite import unmet
    from tunewheel_curate.versions.versioning import rows_sha256, under_pseudonyms, write_version

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
    if broken := unmet(results, "reject"):
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
    from tunewheel_curate.versions.changes import Composition, changes_between
    from tunewheel_curate.versions.suite import check_expectations, observed
    from tunewheel_curate.versions.versioning import DATA_DOCS, name_of, with_origin

    spec, dataset = order.spec, order.spec.dataset
    sides = (with_origin(side, made.lineage) for side in (made.split.train, made.split.holdout))
    before, on_change = asyncio.run(_before(order)), dataset.changes
    train, holdout = sides
    now = Composition(observed(train, holdout), made.funnel).without(made.requests)
    changes = () if before is None else changes_between(before[1].without(made.requests), now)
    if before is not None and (before[0].task, before[0].dataset) != (spec.task, dataset):
        on_change = "warn"
    return check_expectations(
        observed(train, holdout, made.pinned.tokens) if dataset.expectations else now.rows,
        changes,
        spec,
        on_change=on_change,
        dataset_id=name_of(made, spec, rows, previous=order.previous, published=order.published),
        folder=Path(order.folder) / DATA_DOCS,
    )


async def _before(order: BuildOrder) -> tuple[ProjectSpec, Composition] | None:
    """Return the spec and the composition of the version before; None: there is none, or its rows are
    erased."""
    from io import BytesIO

    import polars as pl
    from tunewheel_contracts.errors import InvalidEvent
    from tunewheel_contracts.event import decode_data
    from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

    from tunewheel_curate.records.table import store_of
    from tunewheel_curate.versions.changes import Composition
    from tunewheel_curate.versions.suite import observed
    from tunewheel_curate.versions.versioning import MANIFEST

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
    return manifest.spec, Composition(observed(train, holdout), manifest.funnel)


def _records(order: BuildOrder) -> pl.DataFrame:
    from tunewheel_curate.records.selection import erased
    from tunewheel_curate.records.table import RecordTable

    rows = RecordTable(order.table_url).read(order.spec.project, order.records_upto)
    # Erased rows may still be in the table.
    return rows.filter(~erased(order.erasures))


async def _curated(order: BuildOrder, records: pl.DataFrame) -> Build:
    """Curate ``records`` with the build's other inputs, which are read from the store.

    Raises:
        TransientError: the store is away.
        SourceAway: a source that the spec names does not answer.
    """
    from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

    from tunewheel_curate.builds.lm_eval_tasks import read_tasks
    from tunewheel_curate.evaluation.benchmarks import read_benchmarks, regression_benchmark
    from tunewheel_curate.outcomes import OutcomeCache
    from tunewheel_curate.pipeline import curate, refused
    from tunewheel_curate.quarantine.listing import write_quarantine
    from tunewheel_curate.records.selection import select
    from tunewheel_curate.records.table import store_of
    from tunewheel_curate.similarity.near_cache import NearCache
    from tunewheel_curate.stage import DOCUMENT

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
    from tunewheel_curate.builds.pinned_inputs import pin_inputs, pinned_replay, pinned_retired
    from tunewheel_curate.inputs import Inputs

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
    from tunewheel_curate.inputs import open_for_build

    if order.index is None or order.spec.retrieval is None:
        return None
    return await open_for_build(store, order.index, order.spec.retrieval.embedding)


def _memory(order: BuildOrder) -> HoldoutMemory:
    from tunewheel_curate.holdout.memory import HoldoutMemory

    names = _names(order)
    if order.memory is None:
        return HoldoutMemory(names=names)
    return HoldoutMemory.read(Path(order.memory).read_bytes(), names)


def _names(order: BuildOrder) -> Pseudonyms:
    from tunewheel_contracts.pseudonyms import Pseudonyms

    return Pseudonyms(order.spec.project, order.pseudonym_secret.get_secret_value())


def load() -> None:
    """Import everything that takes seconds to load, so that a build starts at once."""
    from tunewheel_basemodel.tokenizer import import_library
    from tunewheel_contracts.formats.data_quality import PiiPolicy
    from tunewheel_outputs.languages import language_of
    from tunewheel_redaction.folding import fold
    from tunewheel_redaction.recognizers import recognizers_of

    import_library(hide_torch=True)
    for name in NEEDED:
        importlib.import_module(f"tunewheel_curate.{name}")
    importlib.import_module("great_expectations.expectations")
    for name in ("feature_extraction.text", "linear_model", "model_selection"):
        importlib.import_module(f"sklearn.{name}")  # for labels/suspects.py
    language_of("In which language do people ask?")
    for entity in PiiPolicy().wanted:
        recognizers_of(entity)
    fold("")


def main() -> None:
    """Run orders one after the other, until stdin ends or a build dies."""
    answers = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print; stdout is only for answers
    # A collection in the fork would copy the shared pages and take a quarter of a second per build. Hence
    # disable and freeze, as the documentation of gc.freeze advises.
    gc.disable()
    load()
    gc.freeze()
    while line := sys.stdin.readline():
        os.write(answers, TAKEN)
        # No library has started its thread pool here, so each fork starts its own.
        build = os.fork()
        if build == 0:
            _answer(BuildOrder.model_validate_json(line), answers)
        _, status = os.waitpid(build, 0)
        if code := os.waitstatus_to_exitcode(status):
            os._exit(code if code > 0 else 128 - code)
    os._exit(1)


def _answer(order: BuildOrder, answers: int) -> NoReturn:
    """Run ``order``, write the answer and end the process."""
    code = 1
    gc.enable()
    try:
        threading.Thread(target=_end_with_service, args=(order,), daemon=True).start()
        with worker_span("curate", "build process", order.trace):
            line = run_build(order).model_dump_json() + "\n"
        with os.fdopen(answers, "w") as stream:
            stream.write(line)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _end_with_service(order: BuildOrder) -> None:
    """Wait until the service is gone. Then delete the order's folder and end the process at once."""
    hangup = select.poll()
    hangup.register(sys.stdin, 0)  # waits for a hang-up only: the next order is for the worker to read
    hangup.poll()
    scratch = Path(order.folder).parent
    ours = scratch.name.startswith(SCRATCH_PREFIX)
    shutil.rmtree(scratch if ours else order.folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
