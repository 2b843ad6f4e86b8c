"""A flood through a whole build: one ticket a hundred thousand and a million times, and as many that differ
in a number, beside a thousand others.

Each is appended to a record table, read, curated and written in a process of its own. What must hold is that
it ends, that of the flood next to nothing is left, and that memory grows no faster than the records do.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
from corpus import project, require_data, tickets
from report import costs, measured, write_report

SIZES = (100_000, 1_000_000)
AROUND = 1_000
APPEND_BATCH = 50_000
PARTITION = 3
"""Of the flood; the others lie on 0 to 2."""
SAID = (
    "node {} in rack seven is down again please restart it as soon as you can because nobody reaches the shop"
)
TEXTS = {"same": SAID.replace("{}", "nine"), "alike": SAID}


def main() -> None:
    require_data()
    runs = {f"{kind}_{size}": measured(__file__, kind, size) for kind in TEXTS for size in SIZES}
    small, large = SIZES
    write_report(
        "flood",
        packages=("polars", "deltalake", "rensa"),
        contenders=runs,
        ratios={
            f"{figure}_growth_{kind}": runs[f"{kind}_{large}"][key] / runs[f"{kind}_{small}"][key]
            for kind in TEXTS
            for figure, key in (("seconds", "cpu_seconds"), ("memory", "peak_rss_bytes"))
        },
        load_average=os.getloadavg(),
    )


def flood_measured(kind: str, size: int) -> dict[str, Any]:
    from tunewheel_curate.builds.worker import load
    from tunewheel_curate.pipeline import build
    from tunewheel_curate.records.table import RecordTable, ends_of
    from tunewheel_curate.versions.versioning import write_version

    load()
    with tempfile.TemporaryDirectory() as name:
        others, _, labels = tickets(AROUND)
        table, spec = RecordTable(f"{name}/records"), project(labels)
        table.append(others)
        for batch in flood(others.head(1), TEXTS[kind], size):
            table.append(batch)
        before, wall = time.process_time(), time.perf_counter()
        rows = table.read(spec.project, ends_of(others) | {str(PARTITION): size})
        made = build(rows, spec)
        del rows
        manifest = write_version(made, spec, Path(name) / "version")
        cpu, wall = time.process_time() - before, time.perf_counter() - wall
    assert made.rejections == ()
    sides = pl.concat([made.split.train, made.split.holdout])
    said = sides["messages"].explode().struct.field("content")
    return costs(size, cpu, wall) | {
        "left_of_the_flood": int(said.str.contains("in rack seven").sum()),
        "examples": manifest.counts.examples,
    }


def flood(like: pl.DataFrame, text: str, size: int) -> Iterator[pl.DataFrame]:
    """Yield ``size`` records that say ``text``, numbered, in batches."""
    for start in range(0, size, APPEND_BATCH):
        count = min(APPEND_BATCH, size - start)
        number = pl.int_range(start, start + count)
        said = pl.format(text, number) if "{}" in text else pl.lit(text)
        yield pl.concat([like] * count).with_columns(
            pl.format("flood-{}", number).alias("record_id"),
            pl.format("flood-{}", number).alias("source_id"),
            pl.format("flood-event-{}", number).alias("event_id"),
            pl.lit(PARTITION, pl.Int32).alias("partition"),
            number.alias("offset"),
            said.alias("input"),
        )


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(json.dumps(flood_measured(sys.argv[1], int(sys.argv[2]))))
