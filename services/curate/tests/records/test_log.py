from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.topics import RECORD_INGESTED
from tunewheel_curate.records.log import Gap, MissingRecords, catch_up, check_not_ahead, rows_of
from tunewheel_curate.records.table import ForeignRecordTable, RecordTable
from tunewheel_curate.stage import RECORD_SCHEMA
from tunewheel_runtime.deadletter import Undecoded
from tunewheel_runtime.log import Span
from tunewheel_runtime.service import Delivery, Position
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore


def delivery(**fields) -> Delivery[RecordIngested]:
    base = {
        "project": "shop",
        "record_id": "rec-1",
        "kind": RecordKind.TICKET,
        "source_id": "T-1",
        "source_event_id": "e",
        "input": "It rings.",
        "group": "c",
    }
    event = new_event(RecordIngested(**(base | fields)), source="/test")
    return Delivery(event, Position("record.ingested", 2, 7), {})


def test_a_plain_record_says_nothing_of_what_it_lacks() -> None:
    frame = rows_of([delivery()])
    assert dict(frame.schema) == RECORD_SCHEMA
    row = frame.row(0, named=True)
    assert (row["partition"], row["offset"], row["attributes"]) == (2, 7, "{}")
    assert row["history"] is row["sections"] is row["rejected_output"] is None


def test_turns_and_sections_are_canonical_json() -> None:
    turns = (ChatMessage(role="user", content="Hi"), ChatMessage(role="assistant", content="Hello"))
    section = DocumentSection(path=("Lockers", "Reset"), text="Press twice.", page=3)
    row = rows_of([delivery(history=turns, sections=(section,), rejected_output="No.")]).row(0, named=True)
    assert json.loads(row["history"]) == [turn.model_dump() for turn in turns]
    assert row["sections"] == '[{"page":3,"path":["Lockers","Reset"],"text":"Press twice."}]'
    assert DocumentSection.model_validate(json.loads(row["sections"])[0]) == section
    assert row["rejected_output"] == "No."


def test_a_row_says_when_it_was_validated() -> None:
    at = datetime(2026, 3, 9, tzinfo=UTC)
    row = rows_of([delivery(validated_at=at)]).row(0, named=True)
    assert (row["validated_at"], row["occurred_at"]) == (at, None)


def test_a_table_that_was_copied_after_the_log_is_refused() -> None:
    check_not_ahead("s3://wheel/records", {0: 7, 1: 3}, {0: 7, 1: 9, 2: 4})
    with pytest.raises(ForeignRecordTable, match=r"partition 1 of record\.ingested up to offset 3, "):
        check_not_ahead("s3://wheel/records", {0: 7, 1: 4}, {0: 7, 1: 3})


class Start:
    """The gaps as one start of curate sees them."""

    def __init__(self, folder: Path) -> None:
        self.store = ObjectStore(folder.as_uri())
        self.warned: dict[str, str] = {}
        self.missing = MissingRecords(self.store, self.warned.__setitem__)


async def test_a_log_that_begins_where_the_table_ends_or_before_misses_nothing(tmp_path: Path) -> None:
    start = Start(tmp_path)
    await start.missing.compare(begins={0: 0, 1: 5, 2: 5}, reached={0: 0, 1: 5, 2: 9})
    await start.missing.recall()
    assert (start.missing.count, start.warned) == (0, {})


async def test_a_gap_is_told_at_every_start_until_its_note_is_removed(tmp_path: Path) -> None:
    first = Start(tmp_path)
    await first.missing.compare(begins={0: 9}, reached={0: 2})
    path = "missing-records/0-2-9.json"
    assert "7 records of record.ingested, partition 0, offsets 2 to 8" in first.warned[path]
    assert f"remove {path} from the store" in first.warned[path]

    later = Start(tmp_path)  # the table has moved past the gap by now
    await later.missing.recall()
    await later.missing.compare(begins={0: 9}, reached={0: 40})
    assert (later.missing.count, later.warned) == (7, first.warned)

    await later.store.delete([path])
    mended = Start(tmp_path)
    await mended.missing.recall()
    assert (mended.missing.count, mended.warned) == (0, {})


async def test_what_two_gaps_share_counts_once(tmp_path: Path) -> None:
    start = Start(tmp_path)
    for gap in (Gap(0, 0, 10), Gap(0, 4, 12), Gap(0, 20, 21), Gap(1, 0, 5)):
        await start.missing.compare(begins={gap.partition: gap.end}, reached={gap.partition: gap.first})
    assert start.missing.count == 12 + 1 + 5


class Shortened:
    """A log whose first records are gone and whose broker goes away while the rest is read."""

    spans = {(RECORD_INGESTED.name, 0): Span(9, 12), (RECORD_INGESTED.name, 1): Span(0, 3)}

    def __init__(self, *_: object) -> None:
        pass

    async def __aenter__(self) -> Shortened:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def start_from(self, places: object) -> None:
        pass

    async def upto(self, ends: object) -> AsyncIterator[list[Undecoded]]:
        raise TransientError("the broker is away")
        yield []


async def test_a_start_notes_a_gap_before_the_table_can_move_past_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewheel_curate.records.log.Cursor", Shortened)
    start, table = Start(tmp_path), RecordTable(str(tmp_path / "records"))
    with pytest.raises(TransientError, match="away"):
        await catch_up(table, ServiceSettings(), missing=start.missing, erasures=tuple)
    assert list(start.warned) == ["missing-records/0-0-9.json"]
    assert start.missing.count == 9
