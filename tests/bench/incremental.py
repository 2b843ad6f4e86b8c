"""What a thousand new records cost beside a hundred thousand known ones.

Three times, each without and with the index of the hundred thousand: the index alone; the stage as a build
runs it, the index read from and written to the object store included; the whole curation, without doubting
labels. A version holds all its examples and is written whole, so a whole build cannot cost only what is new.
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
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_curate.cleaning.normalization import comparison_key
from tunewheel_curate.duplicates.questions import drop_near_duplicates, find_near_pairs
from tunewheel_curate.holdout.splitting import LEAK_SIMILARITY
from tunewheel_curate.pipeline import build
from tunewheel_curate.similarity.near_cache import NearCache
from tunewheel_curate.similarity.near_index import NearIndex, empty_index, grow
from tunewheel_redaction.recognizers import ENTITIES, recognizers_of
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
    _, whole = timed(lambda: build(records, spec))
    known = build(records.head(KNOWN), spec).near_index
    start_anew()
    _, whole_new = timed(lambda: build(records, spec, earlier=known))
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


def start_anew() -> None:
    """Load the recognisers without what they remember: in a service each build is a process of its own."""
    recognizers_of.cache_clear()
    for entity in ENTITIES:
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
