"""Records per second through curation, stage by stage, on banking77's 13,083 real customer queries.

One process, no broker: the record table's append and read, then each stage of the pipeline. Near-duplicate
search stands beside an exact comparison of all pairs on a sample. Medians of three rounds.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
from report import write_report
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_curate.normalization import normalize_records
from tunewheel_curate.output_validation import validate_outputs
from tunewheel_curate.pipeline import build
from tunewheel_curate.records import RecordTable, ends_of
from tunewheel_curate.redaction import redact_records
from tunewheel_curate.selection import distinct_records, select_usable
from tunewheel_curate.similarity import jaccard, shingles, similar_pairs
from tunewheel_curate.stage import RECORD_SCHEMA

DATA = Path(__file__).resolve().parents[3] / "shared" / "data" / "banking77"
ROUNDS = 3
APPEND_BATCH = 2_000
SAMPLE = 2_000
THRESHOLD = 0.8


def main() -> None:
    if not DATA.is_dir():
        sys.exit(f"{DATA} is missing: the benchmark needs banking77 there")
    queries = [
        (row["text"], row["category"])
        for name in ("train.csv", "test.csv")
        for row in csv.DictReader((DATA / name).open(encoding="utf-8"))
    ]
    records, spec = frame(queries), banking_spec(sorted({label for _, label in queries}))
    redact_records(records[:10], spec.dataset.pii)  # loads the recognisers
    seconds: dict[str, list[float]] = defaultdict(list)
    for _ in range(ROUNDS):
        for name, taken in one_round(records, spec).items():
            seconds[name].append(taken)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    made = build(records, spec)
    found, missed, exact_seconds, lsh_seconds = against_all_pairs([text for text, _ in queries[:SAMPLE]])
    write_report(
        "curate",
        packages=("polars", "deltalake", "rensa", "presidio-analyzer", "ftfy"),
        contenders={
            name: {"seconds": round(taken, 3), "records_per_second": round(records.height / taken)}
            for name, taken in medians.items()
        },
        ratios={
            "near_duplicates_all_pairs_to_lsh": exact_seconds / lsh_seconds,
            "near_duplicates_recall": found / (found + missed) if found + missed else 1.0,
        },
        records=records.height,
        funnel=[stage.model_dump() for stage in made.funnel],
        counts=made.counts.model_dump(),
    )


def one_round(records: pl.DataFrame, spec: ProjectSpec) -> dict[str, float]:
    taken: dict[str, float] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        taken[name] = time.perf_counter() - started
        return result

    with tempfile.TemporaryDirectory() as folder:
        table = RecordTable(f"{folder}/records")
        timed("table_append", lambda: [table.append(batch) for batch in records.iter_slices(APPEND_BATCH)])
        timed("table_read", lambda: table.read("banking", ends_of(records)))
    usable = timed("selection", lambda: select_usable(distinct_records(records))).kept
    clean = timed("normalization", lambda: normalize_records(usable, min_characters=3)).kept
    redacted = timed("redaction", lambda: redact_records(clean, spec.dataset.pii)).kept
    timed("output_validation", lambda: validate_outputs(redacted, spec.task))
    texts = redacted["input"].to_list()
    timed("near_duplicates", lambda: similar_pairs(texts, minimum=0.6))
    timed("whole_build", lambda: build(records, spec))
    return taken


def against_all_pairs(texts: list[str]) -> tuple[int, int, float, float]:
    """Return pairs found and missed by the search, and the seconds of the exact comparison and of it."""
    started = time.perf_counter()
    sets = [shingles(text) for text in texts]
    exact = {
        (i, j)
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if jaccard(sets[i], sets[j]) >= THRESHOLD
    }
    exact_seconds = time.perf_counter() - started
    started = time.perf_counter()
    pairs = {(pair.first, pair.second) for pair in similar_pairs(texts, minimum=THRESHOLD)}
    return len(pairs & exact), len(exact - pairs), exact_seconds, time.perf_counter() - started


def frame(queries: list[tuple[str, str]]) -> pl.DataFrame:
    published = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [
        {"project": "banking", "record_id": f"rec-{n:06}", "kind": "example", "source_id": f"q-{n}",
         "source_event_id": f"event-{n}", "title": "", "input": text,
         "output": json.dumps({"category": label}), "group": f"q-{n}", "trust": "expert",
         "attributes": "{}", "event_id": f"e-{n}", "published_at": published,
         "partition": n % 3, "offset": n // 3}
        for n, (text, label) in enumerate(queries)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema=RECORD_SCHEMA)


def banking_spec(labels: list[str]) -> ProjectSpec:
    schema = {"type": "object", "properties": {"category": {"enum": labels}}, "required": ["category"]}
    task = {"system_prompt": "Classify.", "label_field": "category", "output_schema": schema}
    criteria = [{"metric": "valid_output", "minimum": 0.5}]
    return ProjectSpec.model_validate(
        {"project": "banking", "base_model": "some/model", "task": task, "criteria": criteria}
    )


if __name__ == "__main__":
    main()
