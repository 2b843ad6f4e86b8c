"""One build in a process of its own: ``python -m tunewheel_curate.worker``.

It loads what a build needs, waits for one ``BuildOrder`` (a line of JSON on stdin), writes the version's
files to the order's folder and answers with one ``BuildOutcome`` (a line of JSON on stdout). Its parent keeps
stdin open; when that closes, the parent is gone and so is the worker.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import queue
import shutil
import sys
import threading
from pathlib import Path

from tunewheel_contracts.fields import Frozen
from tunewheel_contracts.formats.dataset import DatasetCounts, DatasetManifest, FunnelStage, RecordsUpto
from tunewheel_contracts.formats.spec import ProjectSpec


class BuildOrder(Frozen):
    """What to build, and where to put it."""

    table_url: str
    spec: ProjectSpec
    records_upto: RecordsUpto
    folder: str


class BuildOutcome(Frozen):
    """What came of it. ``manifest`` is None where the records make no dataset (``rejections``) or are not
    all in the table yet (``behind``)."""

    manifest: DatasetManifest | None = None
    rows_sha256: str = ""
    counts: DatasetCounts | None = None
    funnel: tuple[FunnelStage, ...] = ()
    rejections: tuple[str, ...] = ()
    behind: str | None = None


def run_build(order: BuildOrder) -> BuildOutcome:
    """Read the records, curate them, write the version's files below ``order.folder``."""
    from tunewheel_curate.near_cache import NearCache
    from tunewheel_curate.pipeline import build
    from tunewheel_curate.records import RecordTable, TableBehind, store_of
    from tunewheel_curate.suite import run_suite
    from tunewheel_curate.versioning import DATA_DOCS, rows_sha256, write_version

    spec, folder = order.spec, Path(order.folder)
    try:
        records = RecordTable(order.table_url).read(spec.project, order.records_upto)
    except TableBehind as error:
        return BuildOutcome(behind=str(error))
    cache = NearCache(store_of(order.table_url))
    known = asyncio.run(cache.read(spec.project))
    made = build(records, spec, known=known)
    asyncio.run(cache.write(spec.project, made.near_index, known=known))
    rows = rows_sha256(made.split)
    outcome = BuildOutcome(
        rows_sha256=rows, counts=made.counts, funnel=made.funnel, rejections=made.rejections
    )
    if made.rejections:
        return outcome
    manifest = write_version(made, spec, folder, data_docs=True)
    failures = run_suite(made.split, spec, manifest.dataset_id, folder / DATA_DOCS)
    if failures:
        return outcome.model_copy(update={"rejections": tuple(f"suite: {failure}" for failure in failures)})
    return outcome.model_copy(update={"manifest": manifest})


def load() -> None:
    """Import what takes seconds, so that a waiting worker starts at once."""
    from tunewheel_curate.recognizers import ENTITIES, recognizers_of

    for name in ("near_cache", "pipeline", "records", "suite", "versioning"):
        importlib.import_module(f"tunewheel_curate.{name}")
    importlib.import_module("great_expectations.expectations")
    for entity in ENTITIES:
        recognizers_of(entity)


def main() -> None:
    """Serve one order."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # libraries print; stdout is for the answer
    orders: queue.Queue[BuildOrder] = queue.Queue()
    threading.Thread(target=_listen_to_parent, args=(orders,), daemon=True).start()
    load()
    answers.write(run_build(orders.get()).model_dump_json() + "\n")
    answers.flush()


def _listen_to_parent(orders: queue.Queue[BuildOrder]) -> None:
    """Pass the order on; when the parent is gone, take its folder away and end the process at once."""
    order: BuildOrder | None = None
    while line := sys.stdin.readline():
        order = BuildOrder.model_validate_json(line)
        orders.put(order)
    if order is not None:
        shutil.rmtree(order.folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    main()
