"""What a build costs end to end, what it finds of the faults that were put in, and how both grow.

Each size is built in a process of its own: the record table read, the records curated, the version written.
Great Expectations' Data Docs are timed apart (TUNEWHEEL_BENCH_DOCS=0 leaves them out). Tickets come from
``corpus``. What a worker loads while it waits for its order is loaded before, and told apart. Processor
seconds are the fair figure: others may be using the machine.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
from corpus import Faults, project, require_data, tickets
from report import costs, measured, write_report

SIZES = (10_000, 100_000)
APPEND_BATCH = 10_000
SUITE = os.environ.get("TUNEWHEEL_BENCH_DOCS", "1") != "0"
SECRETS = ("@example.com", "+44 20 7946", "DE89 3704")


def main() -> None:
    require_data()
    runs = {str(size): measured(__file__, size) for size in SIZES}
    small, large = (runs[str(size)] for size in SIZES)
    write_report(
        "curate",
        packages=("polars", "deltalake", "rensa", "presidio-analyzer", "ftfy", "great-expectations"),
        contenders=runs,
        ratios={
            "seconds_growth_for_ten_times_the_records": large["cpu_seconds"] / small["cpu_seconds"],
            "memory_growth_for_ten_times_the_records": large["peak_rss_bytes"] / small["peak_rss_bytes"],
            "records_per_second_and_core_to_goal": large["records_per_cpu_second"] / 3_000,
            "memory_to_goal": large["peak_rss_bytes"] / (1.5 * 2**30),
            **{f"found_{kind}": share for kind, share in large["found"].items()},
        },
        load_average=os.getloadavg(),
    )


def build_measured(size: int) -> dict[str, Any]:
    from tunewheel_curate.builds.worker import load
    from tunewheel_curate.evaluation.benchmarks import regression_benchmark
    from tunewheel_curate.inputs import Inputs
    from tunewheel_curate.pipeline import build
    from tunewheel_curate.records.table import RecordTable, ends_of
    from tunewheel_curate.versions.changes import Composition, changes_between
    from tunewheel_curate.versions.suite import check_expectations, observed
    from tunewheel_curate.versions.versioning import with_origin, write_version

    load()
    loading = round(time.process_time(), 2)
    with tempfile.TemporaryDirectory() as name:
        records, faults, labels = tickets(size)
        upto, folder = ends_of(records), Path(name) / "version"
        table, spec = RecordTable(f"{name}/records"), project(labels)
        for batch in records.iter_slices(APPEND_BATCH):
            table.append(batch)
        del records
        steps: dict[str, float] = {}
        started = last = time.process_time()
        wall = time.perf_counter()

        def step(step_name: str) -> None:
            nonlocal last
            now = time.process_time()
            steps[step_name], last = round(now - last, 2), now

        rows = table.read(spec.project, upto)
        step("read")
        made = build(rows, spec, Inputs(benchmarks=(regression_benchmark(None),)))
        step("curate")
        manifest = write_version(made, spec, folder)
        step("write")
        total = costs(size, last - started, time.perf_counter() - wall)
        if SUITE:
            sides = [with_origin(side, made.lineage) for side in (made.split.train, made.split.holdout)]
            now = Composition(observed(*sides), made.funnel)
            docs = folder / "data_docs"
            results = check_expectations(
                now.rows, changes_between(now, now), spec, on_change="hold", dataset_id=manifest.dataset_id,
                folder=docs,
            )  # fmt: skip
            assert all(one.met for one in results)
            step("data_docs")
        found = caught(faults, folder)
    return total | {
        "cpu_seconds_by_step": steps,
        "cpu_seconds_to_load_before": loading,
        "found": found,
        "counts": manifest.counts.model_dump(),
        "review": manifest.quality.review_counts if manifest.quality else {},
    }


def caught(faults: Faults, folder: Path) -> dict[str, float]:
    """Return the share of the faults of each kind that the version shows as dropped, or redacted.

    Of two duplicates either may stay; what repeats another contaminated ticket goes as its duplicate.
    """
    lineage = pl.read_parquet(folder / "lineage.parquet")
    stage_of = dict(lineage.select("record_id", pl.col("stage").fill_null("")).iter_rows())
    held = set(pl.read_parquet(folder / "holdout.parquet")["record_ids"].explode())
    repeated = {i for i in faults.contaminated if stage_of[i].startswith("near_")}
    told_apart = (held & faults.contaminated) | repeated
    wanted = {
        "exact": {"exact_duplicates"}, "near": {"near_duplicates"}, "conflicts": {"conflicts"},
        "broken": {"output_validation"}, "empty": {"normalization"}, "contaminated": {"contamination"},
    }  # fmt: skip
    shares: dict[str, float] = {}
    for kind, stages in wanted.items():
        ids: set[str] = getattr(faults, kind)
        hits = sum(bool(stages & {stage_of[i], stage_of[before(i)]}) or i in told_apart for i in ids)
        shares[kind] = round(hits / len(ids), 4)
    rows = pl.concat([pl.read_parquet(folder / f"{side}.parquet") for side in ("train", "holdout")])
    told = {r for ids, m in rows.select("record_ids", "messages").iter_rows() for r in ids
            if any(secret in turn["content"] for turn in m for secret in SECRETS)}  # fmt: skip
    shares["personal"] = round(1 - len(told & faults.personal) / len(faults.personal), 4)
    return shares


def before(record_id: str) -> str:
    """Return the ticket that a fault was made from: the one before it."""
    return f"rec-{int(record_id.removeprefix('rec-')) - 1:07}"


if __name__ == "__main__":
    if len(sys.argv) == 1:
        main()
    else:
        print(json.dumps(build_measured(int(sys.argv[1]))))
