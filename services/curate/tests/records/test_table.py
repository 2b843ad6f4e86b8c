from __future__ import annotations

import contextlib
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from deltalake import CommitProperties, DeltaTable, Transaction, write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.errors import TransientError
from tunewheel_curate.records.table import (
    ForeignRecordTable,
    RecordTable,
    TableBehind,
    TableReplaced,
    ends_of,
)

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
OTHER = {"partition": 1, "offset": 0}


@pytest.fixture
def table(tmp_path: Path) -> RecordTable:
    return RecordTable(str(tmp_path / "records"))


def test_an_absent_table_is_empty(table) -> None:
    assert table.version() is None
    assert table.arrivals().is_empty()
    assert table.read("shop", {}).is_empty()
    assert table.reached(0) == 0
    assert not table.compact(min_files=1)


def test_what_was_appended_is_read(table, records) -> None:
    rows = records(*({} for _ in range(9)), {"project": "other"})
    assert table.append(rows) == 10
    read = table.read("shop", ends_of(rows.filter(pl.col("project") == "shop")))
    assert read.sort("record_id").equals(rows.filter(pl.col("project") == "shop").sort("record_id"))


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_redelivered_batches_add_nothing(data, tmp_path_factory, records) -> None:
    table = RecordTable(str(tmp_path_factory.mktemp("delta") / "records"))
    rows = records(*({} for _ in range(12))).with_columns(
        pl.lit(0, dtype=pl.Int32).alias("partition"), pl.int_range(12, dtype=pl.Int64).alias("offset")
    )
    done = 0
    while done < 12:
        start = data.draw(st.integers(0, done))
        end = data.draw(st.integers(done + 1, 12))
        assert table.append(rows[start:end]) == end - done
        done = end
    assert table.append(rows) == 0
    assert table.arrivals().sort("offset")["record_id"].to_list() == rows["record_id"].to_list()


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_an_erasure_counts_each_record_of_its_person_once_whenever_its_request_is_known(
    data, tmp_path_factory, records
) -> None:
    """Records come in batches of any size, before and after the request is on the log, also as copies that
    name somebody else. Those that came before it was carried out are counted, and nothing is left of them."""
    table = RecordTable(str(tmp_path_factory.mktemp("delta") / "records"))
    named = st.tuples(st.integers(0, 3), st.sampled_from(["ann", "bob", "wrong"]))
    said = data.draw(st.lists(named, min_size=1, max_size=9))
    rows = records(
        *(
            {"record_id": f"rec-{number}", "source_id": f"T-{number}", "group": group, "published_at": NOON,
             "occurred_at": NOON, "partition": 0, "offset": offset}
            for offset, (number, group) in enumerate(said)
        )
    )  # fmt: skip
    known: list[Erasure] = []
    done = 0
    while done < len(said):
        end = data.draw(st.integers(done + 1, len(said)))
        table.append(rows[done:end], erasures=known)
        done = end
        for name in {"ann", "bob"} - {one.customer for one in known}:
            if data.draw(st.booleans()):
                known.append(Erasure(project="shop", customer=name, until=NOON))
    own: dict[str, set[str]] = {}
    for erasure in known:
        found = table.subjects((erasure,))
        own[erasure.customer] = set(found["record_id"])
        table.remember("shop", found["record_id"], NOON)
        table.erase(table.subjects((erasure,)))
    for name, ids in own.items():
        wanted = {f"rec-{number}" for number, group in said if group == name}
        others = [ids for other, ids in own.items() if other != name]
        assert wanted <= ids.union(*others), "each is in the proof of one of those whom it names"
        assert ids <= wanted
    gone = set().union(*own.values())
    assert set(table.arrivals()["record_id"]) == {f"rec-{number}" for number, _ in said} - gone


def test_two_writers_of_one_partition_do_not_double(tmp_path: Path, records) -> None:
    one, other = (RecordTable(str(tmp_path / "records")) for _ in range(2))
    rows = records(*({} for _ in range(6)))
    one.append(rows[:3])
    assert other.append(rows[:3]) == 0
    other.append(rows[3:])
    assert one.append(rows) == 0
    assert one.arrivals().height == 6


def test_reading_stops_at_the_asked_for_offsets(table, records) -> None:
    table.append(records(*({} for _ in range(9))))
    assert table.read("shop", {"0": 2, "1": 1}).height == 3
    with pytest.raises(TableBehind, match="up to 3, the build asks for 5"):
        table.read("shop", {"0": 5})


def test_a_table_of_another_log_is_refused(table, records) -> None:
    table.append(records({}, {}, {}, {}))
    with pytest.raises(ForeignRecordTable, match="delete the table"):
        table.append(records({"record_id": "rec-of-another-log"}))


def test_compaction_keeps_the_records(table, records) -> None:
    rows = records(*({} for _ in range(12)))
    for start in range(0, 12, 3):
        table.append(rows[start : start + 3])
    before = table.version()
    assert not table.compact(min_files=5)
    assert table.compact(min_files=4)
    assert table.version() == before + 1
    assert table.arrivals().height == 12
    assert table.append(rows) == 0


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_merge_deletes_merged_files_after_their_time(
    tmp_path: Path, table, records, checkpoint: bool
) -> None:
    rows = records(*({} for _ in range(6)))
    for start in range(3):
        table.append(rows[2 * start : 2 * start + 2])
    files = sorted((tmp_path / "records").rglob("*.parquet"))
    assert table.compact(min_files=3)
    assert all(file.exists() for file in files), "a build may read them"
    DeltaTable(table.url).alter.set_table_properties(
        {"delta.deletedFileRetentionDuration": "interval 0 days"}
    )
    if checkpoint:  # Delta writes one after every 100 versions
        DeltaTable(table.url).create_checkpoint()
    table.append(records(*({} for _ in range(7)))[6:])
    assert table.compact(min_files=2)
    assert not any(file.exists() for file in files)
    assert table.arrivals().height == 7


@pytest.mark.parametrize("projects", [1, 3])
def test_files_that_cannot_be_merged_raise_no_version(table, records, projects: int) -> None:
    """Each project has a file of its own. Whoever watches reads the whole table after a new version."""
    rows = records(*({"project": f"shop-{index % projects}"} for index in range(12)))
    for start in (0, 6):
        table.append(rows[start : start + 6])
    assert table.compact(min_files=2)
    DeltaTable(table.url).alter.set_table_properties(
        {"delta.deletedFileRetentionDuration": "interval 0 days"}
    )
    version = table.version()
    for _ in range(2):
        assert not table.compact(min_files=1)
    assert table.version() == version
    assert table.arrivals().height == 12


def test_a_table_with_fewer_columns_is_read_and_grows(table, records) -> None:
    later = ("rejected_output", "history", "sections")
    rows = records(*({} for _ in range(6)), {"history": '[{"content":"a","role":"user"}]'})
    kept = CommitProperties(app_transactions=[Transaction(f"record.ingested-{p}", 1) for p in range(3)])
    write_deltalake(
        table.url, rows[:6].drop(later), mode="append", partition_by=["project"], commit_properties=kept
    )
    before = table.read("shop", {})
    assert before.columns == rows.columns
    older = RecordTable(table.url)
    assert table.append(rows[6:]) == 1
    read = older.read("shop", ends_of(rows)).sort("record_id")
    assert read["history"].to_list() == [None] * 6 + rows["history"].to_list()[6:]
    assert read.drop(later).equals(rows.drop(later))


def test_an_unreachable_store_is_transient(tmp_path: Path, records) -> None:
    (tmp_path / "blocked").write_text("a file where a folder should be")
    with pytest.raises(TransientError):
        RecordTable(str(tmp_path / "blocked" / "records")).append(records({}))


def words_below(folder: Path) -> str:
    """Return everything that the files hold, Parquet unpacked."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    texts = [
        str(pl.read_parquet(file).to_dicts()) if file.suffix == ".parquet" else file.read_text("utf-8")
        for file in files
    ]
    return "\n".join(texts)


def test_what_is_erased_is_in_no_file_and_does_not_come_back(tmp_path: Path, records) -> None:
    table = RecordTable(str(tmp_path / "records"))
    rows = records(*({"title": f"marker-{n}", "group": f"person-{n}"} for n in range(12)))
    for start in range(0, 12, 3):
        table.append(rows[start : start + 3])
    table.compact(min_files=2)  # the files before it are still there
    until = rows["published_at"].max()
    erasure = Erasure(project="shop", customer="person-11", until=until)
    found = table.subjects((erasure,))
    assert found["record_id"].to_list() == ["rec-0011"]
    assert words_below(tmp_path).count("person-11") == 2

    table.erase(found)
    table.erase(found)
    assert "person-11" not in words_below(tmp_path)
    assert "person-10" in words_below(tmp_path)
    assert table.subjects((erasure,)).is_empty()

    assert table.append(rows[-1:], erasures=(erasure,)) == 0
    assert table.subjects((erasure,))["record_id"].to_list() == ["rec-0011"], "the proof counts it"
    assert table.held_subjects((erasure,)).is_empty(), "there is nothing to erase"

    # The last record of its partition is gone, and what was appended is still known to be.
    assert table.reached(2) == 4
    assert table.append(rows, erasures=(erasure,)) == 0
    assert table.read("shop", {"2": 4})["record_id"].n_unique() == 3


def test_a_rebuilt_table_leaves_the_erased_out_and_reaches_as_far(table, records) -> None:
    rows = records(*({"group": f"person-{n}"} for n in range(6)))
    erasures = [Erasure(project="shop", customer=f"person-{n}", until=rows["published_at"].max())
                for n in range(3, 6)]  # fmt: skip
    assert table.append(rows[3:].with_columns(pl.col("offset") - 1), erasures=erasures) == 0
    assert table.reached(0) == 1
    assert table.append(rows[:3].with_columns(pl.col("offset") + 1), erasures=erasures) == 3
    assert table.read("shop", {"0": 2, "1": 2, "2": 2}).height == 3


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (2, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("at_once", [1, 3])
def test_a_rebuilt_table_leaves_copies_of_the_erased_out_in_any_order(
    table, records, order: tuple[int, ...], at_once: int
) -> None:
    copies = [
        {"record_id": "rec-a", "group": group, "published_at": NOON} for group in ("T-1", "jane", "bob")
    ]
    places = [{"partition": 0, "offset": place} for place in range(5)]
    rows = records(
        *(copies[n] | place for n, place in zip(order, places, strict=False)),
        {"record_id": "rec-a", "group": "bob", "published_at": NOON + timedelta(days=1)} | places[3],
        {"record_id": "rec-b", "group": "T-1", "published_at": NOON} | places[4],
        {"record_id": "rec-a", "group": "T-1", "project": "other", "published_at": NOON} | OTHER,
    )
    erasures = (Erasure(project="shop", customer="jane", until=NOON),)
    for start in range(0, rows.height, at_once):
        table.append(rows[start : start + at_once], erasures=erasures)
    assert sorted(table.read("shop", {"0": 5})["offset"]) == [3, 4]
    assert table.read("other", {"1": 1}).height == 1
    assert table.append(rows, erasures=erasures) == 0


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0)])
@pytest.mark.parametrize("at_once", [1, 5])
def test_an_erased_version_takes_versions_of_its_source_that_name_nobody_in_any_order(
    table, records, order: tuple[int, ...], at_once: int
) -> None:
    versions = [
        {"record_id": "rec-a", "group": "T-1", "source_id": "T-1"},
        {"record_id": "rec-b", "group": "jane", "source_id": "T-1"},
        {"record_id": "rec-c", "group": "ann", "source_id": "T-1"},
        {"record_id": "rec-d", "group": "T-1", "source_id": "T-1", "kind": "example"},
        {"record_id": "rec-e", "group": "T-1", "source_id": "T-1", "published_at": NOON + timedelta(days=1)},
    ]
    place = [{"published_at": NOON, "partition": 0, "offset": offset} for offset in range(5)]
    rows = records(*(at | versions[n] for n, at in zip(order, place, strict=True)))
    erasures = (Erasure(project="shop", customer="jane", until=NOON),)
    for start in range(0, 5, at_once):
        table.append(rows[start : start + at_once], erasures=erasures)
    assert set(table.read("shop", {"0": 5})["record_id"]) == {"rec-c", "rec-d", "rec-e"}


def test_a_reader_whose_files_are_erased_tries_again(tmp_path: Path, records) -> None:
    table = RecordTable(str(tmp_path / "records"))
    table.append(records(*({} for _ in range(6))))
    for file in (tmp_path / "records").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(TransientError, match="cannot read the record table"):
        table.arrivals()


def test_names_of_people_never_reach_the_predicate(table, records) -> None:
    rows = records({"group": "O'Brien'; DROP"}, {"group": "other"})
    table.append(rows)
    erasure = Erasure(project="shop", customer="O'Brien'; DROP", until=rows["published_at"].max())
    table.erase(table.subjects((erasure,)))
    assert table.arrivals().height == 1


def test_a_store_that_is_away_is_tried_again_whatever_was_asked_of_it(
    tmp_path: Path, records, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "records"
    rows = records(*({"partition": 0, "offset": n} for n in range(4)))
    filled = RecordTable(str(folder))
    filled.append(rows[:2])
    filled.append(rows[2:])
    files = list(folder.rglob("*.parquet"))
    kept = {file: file.read_bytes() for file in files}
    for file in files:
        file.unlink()
    with pytest.raises(TransientError, match="cannot compact the record table"):
        filled.compact(min_files=1)
    with pytest.raises(TransientError, match="cannot read the record table"):
        filled.append(rows)
    with pytest.raises(TransientError, match="cannot read the record table"):
        filled.arrivals()
    for file, content in kept.items():
        file.write_bytes(content)
    filled.version()  # opened, when the store goes away
    with monkeypatch.context() as away:
        away.setattr(DeltaTable, "get_add_actions", broken)
        with pytest.raises(TransientError, match=r"cannot open the record table .*no route to host"):
            filled.later_arrivals({}, known=0)
    with monkeypatch.context() as away:
        away.setattr("tunewheel_curate.records.table.DeltaTable", broken)
        with pytest.raises(TransientError, match=r"cannot open the record table .*no route to host"):
            filled.arrivals()
    assert (filled.arrivals().height, filled.append(rows)) == (4, 0)


def broken(*_: object, **__: object) -> None:
    raise OSError("no route to host")


@pytest.mark.parametrize("kept", [0, 2, 4])
def test_a_table_that_is_replaced_while_it_is_open_gets_no_rows_behind_a_gap(table, records, kept) -> None:
    rows = records(*({"partition": 0, "offset": offset} for offset in range(9)))
    backup = f"{table.url}-backup"
    for first in range(0, 6, 2):
        if first == kept and first:
            shutil.copytree(table.url, backup)
        table.append(rows[first : first + 2])
    shutil.rmtree(table.url)
    if kept:
        shutil.move(backup, table.url)
    with contextlib.suppress(TransientError):  # what was open is gone: the next attempt opens anew
        table.version()
        table.append(rows[6:])
    with pytest.raises(TableReplaced, match="up to 5, and has it up to"):
        table.append(rows[6:])
    again = RecordTable(table.url)
    assert again.reached(0) == kept
    assert again.append(rows) == 9 - kept
