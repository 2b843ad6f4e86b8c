"""What a look keeps of the record table suffices for the build policy, and does not grow with what teaches
nothing."""

from __future__ import annotations

from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunewheel_curate.builds.policy import pending_records
from tunewheel_curate.records.arrivals import MOST_CHUNKS, Arrivals
from tunewheel_curate.records.table import RecordTable, ends_of

KINDS: dict[str, dict[str, Any]] = {
    "answered": {},
    "unanswered": {"output": None},
    "document": {"kind": "document", "output": None},
    "rated up": {"kind": "feedback", "output": None, "rating": "up"},
    "rated down": {"kind": "feedback", "output": None, "rating": "down"},
}


@pytest.fixture
def table(tmp_path) -> RecordTable:
    return RecordTable(str(tmp_path / "records"))


def test_a_look_reads_what_is_new(table, records, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, collect, read = records(*({} for _ in range(12))), table._collected, list[int]()

    def collected(frame: pl.LazyFrame) -> pl.DataFrame:
        read.append((found := collect(frame)).height)
        return found

    arrivals = Arrivals(table)
    table.append(rows[:9])
    monkeypatch.setattr(table, "_collected", collected)
    for start, end in ((9, 9), (9, 11), (11, 11), (11, 12)):
        table.append(rows[start:end])
        assert arrivals.look()["shop"].rows.height == end
    assert table.compact(min_files=2)
    assert arrivals.look()["shop"].rows.height == 12
    assert sum(read) == 12


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(st.sampled_from(["append", "erase", "erase and append", "compact"]), max_size=8),
    kinds=st.lists(st.sampled_from(list(KINDS)), min_size=18, max_size=18),
)
def test_a_look_finds_what_another_process_did(steps, kinds, tmp_path_factory, records) -> None:
    url = str(tmp_path_factory.mktemp("delta") / "records")
    looking, writing = Arrivals(RecordTable(url)), RecordTable(url)
    rows = records(*({"project": f"shop-{n % 2}"} | KINDS[kind] for n, kind in enumerate(kinds)))
    writing.append(rows[:2])
    for number, step in enumerate([*steps, "look"], 1):
        found, anew = looking.look(), Arrivals(RecordTable(url)).look()
        assert found.keys() == anew.keys()
        for project, arrived in anew.items():
            assert found[project].rows.sort("record_id").equals(arrived.rows.sort("record_id"))
            assert found[project].written == arrived.written
        if "erase" in step:
            writing.erase(writing._collected(writing._scan(("partition", "offset")))[:1])
        if "append" in step:
            writing.append(rows[2 * number : 2 * number + 2])
        if step == "compact":
            writing.compact(min_files=2)


@settings(max_examples=30)
@given(
    kinds=st.lists(st.sampled_from(list(KINDS)), max_size=20),
    built=st.dictionaries(st.sampled_from("012"), st.integers(0, 7)),
    looks=st.integers(1, 4),
)
def test_what_is_kept_counts_as_all_rows_do(kinds, built, looks, records) -> None:
    rows = records(*KINDS.values(), *(KINDS[kind] for kind in kinds))
    whole, table = with_usable(rows), Parts()
    arrivals, size = Arrivals(table), -(-whole.height // looks)
    for start in range(0, whole.height, size):
        table.rows = whole[start : start + size]
        kept, written = arrivals.look()["shop"]
    assert written == ends_of(whole.filter(pl.col("rating").is_null()))
    for options in ({}, {"documents": True}, {"ratings": True}):
        of_kept, of_all = (pending_records(frame, built, **options) for frame in (kept, whole))
        assert (of_kept.count, of_kept.upto, of_kept.request) == (of_all.count, of_all.upto, of_all.request)


class Parts:
    """A table of which each look reads ``rows``."""

    rows: pl.DataFrame

    def later_arrivals(self, ends: Any, *, known: int) -> pl.DataFrame:
        return self.rows


def with_usable(rows: pl.DataFrame) -> pl.DataFrame:
    usable = (pl.col("kind") != "document") & pl.col("output").is_not_null()
    return rows.with_columns(usable.alias("usable")).select(
        "project", "record_id", "usable", "kind", "trust", "rating", "source_id", "published_at",
        "partition", "offset",
    )  # fmt: skip


def test_of_tickets_without_an_answer_the_last_of_each_partition_is_kept(table, records) -> None:
    rows = records(
        *({"output": None} | ({"project": "other"} if n % 4 == 3 else {}) for n in range(300)), {}, {}
    )
    arrivals = Arrivals(table)
    for start in range(0, rows.height, 100):
        table.append(rows[start : start + 100])
        found = arrivals.look()
    assert {project: arrived.rows.height for project, arrived in found.items()} == {"shop": 5, "other": 3}
    for project, arrived in found.items():
        assert ends_of(arrived.rows) == ends_of(rows.filter(pl.col("project") == project))
        assert arrived.written == ends_of(rows.filter(pl.col("project") == project))


@pytest.mark.parametrize("size", [1, 3])
def test_looks_without_end_leave_no_chunk_each(records, size: int) -> None:
    table = Parts()
    arrivals = Arrivals(table)
    whole = with_usable(records(*({} for _ in range(3 * MOST_CHUNKS * size))))
    for start in range(0, whole.height, size):
        table.rows = whole[start : start + size]
        rows = arrivals.look()["shop"].rows
        assert rows.n_chunks() <= MOST_CHUNKS + 1
    assert rows.sort("record_id").equals(whole.drop("project").sort("record_id"))
