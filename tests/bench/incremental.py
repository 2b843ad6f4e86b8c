"""What a thousand new records cost beside a hundred thousand known ones.

Three times, each without and with what the build of the hundred thousand kept: the index alone; the stage as
a build runs it; the whole curation, without doubting labels, which must give the same rows. What was kept is
read from and written to the object store. A version holds all its examples and is written whole, so a whole
build cannot cost only what is new.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import polars as pl
from corpus import project, require_data, tickets
from report import write_report
from tunewheel_contracts.formats.data_quality import PiiPolicy
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_curate.cleaning.normalization import comparison_key
from tunewheel_curate.duplicates.questions import drop_near_duplicates, find_near_pairs
from tunewheel_curate.holdout.memory import LEAK_SIMILARITY
from tunewheel_curate.outcomes import OutcomeCache, no_outcomes
from tunewheel_curate.pipeline import Build, build
from tunewheel_curate.similarity.near_cache import NearCache
from tunewheel_curate.similarity.near_index import NearIndex, empty_index, grow
from tunewheel_curate.versions.versioning import rows_sha256
from tunewheel_redaction.recognizers import recognizers_of
from tunewheel_redaction.redaction import find_entities
from tunewheel_runtime.store import ObjectStore

KNOWN, NEW = 100_000, 1_000


def main() -> None:
    require_data()
    records, _, labels = tickets(KNOWN + NEW)
    spec = project(labels, label_review={"suspects": False})
    task = spec.task.model_copy(update={"output_schema": None})  # broken answers are among these
    keys = pl.Series("key", [comparison_key(text) for text in records["input"]], dtype=pl.String)
    singles = records.with_columns(keys, pl.lit(None, dtype=pl.String).alias("label")).unique(
        "key", keep="first", maintain_order=True
    )
    before = singles["key"].head(-NEW)  # of texts that differ: equal ones never reach the index
    index, first = timed(lambda: grow(empty_index(), before)[0])
    grown, added = timed(lambda: grow(index, singles["key"])[0])
    with tempfile.TemporaryDirectory() as folder:
        cache = NearCache(ObjectStore(folder))
        asyncio.run(cache.write("bench", index))
        _, stage_new = timed(lambda: stage(cache, singles, task))
        _, stage_whole = timed(lambda: settle(singles, task, empty_index()))
        size = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
    start_anew()
    made, whole = timed(lambda: build(records, spec))
    with tempfile.TemporaryDirectory() as folder:
        store = ObjectStore(folder)
        asyncio.run(keep(build(records.head(KNOWN), spec), store))
        start_anew()
        again, whole_new = timed(lambda: asyncio.run(built_again(records, spec, store)))
    assert rows_sha256(again.split) == rows_sha256(made.split)
    assert again.funnel == made.funnel
    write_report(
        "incremental",
        packages=("rensa", "polars", "numpy"),
        contenders={
            "index": {"rebuilt": first, "grown": added},
            "stage": {"rebuilt": stage_whole, "grown": stage_new},
            "curation": {"rebuilt": whole, "grown": whole_new},
        },
        ratios={
            "index_grown_to_rebuilt": added["cpu_seconds"] / first["cpu_seconds"],
            "stage_grown_to_rebuilt": stage_new["cpu_seconds"] / stage_whole["cpu_seconds"],
            "curation_grown_to_rebuilt": whole_new["cpu_seconds"] / whole["cpu_seconds"],
        },
        known=KNOWN,
        new=NEW,
        texts=len(grown),
        pairs=len(grown.codes),
        index_bytes=size or sum(a.nbytes for a in (grown.bands, grown.codes, grown.shared)),
        load_average=os.getloadavg(),
    )


async def keep(made: Build, store: ObjectStore) -> None:
    """Store what the next build of the project uses again."""
    await NearCache(store).write("bench", made.near_index)
    await OutcomeCache(store).write("bench", made.outcomes, earlier=no_outcomes())


async def built_again(records: pl.DataFrame, spec: ProjectSpec, store: ObjectStore) -> Build:
    """Build with what is in ``store``, and store what the build keeps."""
    earlier, outcomes = await NearCache(store).read("bench"), await OutcomeCache(store).read("bench")
    made = build(records, spec, earlier=earlier, outcomes=outcomes)
    await keep(made, store)
    return made


def start_anew() -> None:
    """Load the recognisers without what they remember: in a service each build is a process of its own."""
    recognizers_of.cache_clear()
    for entity in PiiPolicy().wanted:
        recognizers_of(entity)
    find_entities(["+44 20 7946 0321"], ["PHONE_NUMBER"])  # phonenumbers reads its tables at the first number


def stage(cache: NearCache, singles: pl.DataFrame, task: TaskSpec) -> None:
    known = asyncio.run(cache.read("bench"))
    asyncio.run(cache.write("bench", settle(singles, task, known), earlier=known))


def settle(singles: pl.DataFrame, task: TaskSpec, earlier: NearIndex) -> NearIndex:
    """Find and drop near-duplicates, as a build does."""
    found = find_near_pairs(singles, minimum=LEAK_SIMILARITY, earlier=earlier)
    assert found.pairs is not None
    assert found.near_index is not None
    drop_near_duplicates(singles, found.pairs, task, threshold=0.8)
    return found.near_index


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return result, {
        "cpu_seconds": round(time.process_time() - cpu, 3),
        "seconds": round(time.perf_counter() - wall, 3),
    }


if __name__ == "__main__":
    main()
