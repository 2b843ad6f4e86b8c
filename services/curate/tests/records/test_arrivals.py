from __future__ import annotations

import json
from datetime import UTC, datetime

from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_curate.records.arrivals import rows_of
from tunewheel_curate.stage import RECORD_SCHEMA
from tunewheel_runtime.service import Delivery, Position


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
