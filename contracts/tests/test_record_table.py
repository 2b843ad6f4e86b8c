"""Records as rows of the record table, and back."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.document import DocumentSection
from tunewheel_contracts.principal import Principal
from tunewheel_contracts.record_table import record_of, row_of, table_url

PLAIN = RecordIngested(
    project="desk", record_id="rec-1", kind=RecordKind.DOCUMENT, source_id="a.md", source_event_id="e",
    input="The bell rings.", group="a.md",
)  # fmt: skip
FULL = PLAIN.model_copy(
    update={
        "title": "Bells",
        "output": "Yes.",
        "history": (ChatMessage(role="user", content="?"),),
        "sections": (DocumentSection(text="The bell rings.", path=("Bells", "Door"), kind="code"),),
        "occurred_at": datetime(2026, 5, 1, 12, tzinfo=UTC),
        "attributes": {"lang": "en"},
    }
)


@pytest.mark.parametrize("record", [PLAIN, FULL])
def test_a_row_gives_the_record_back(record: RecordIngested) -> None:
    event = new_event(record, source="/test")
    row = row_of(event, partition=2, offset=7)
    assert record_of(row) == record
    assert (row["partition"], row["offset"], row["published_at"]) == (2, 7, event.time)
    assert record_of({name: value for name, value in row.items() if value is not None}) == record


@pytest.mark.parametrize(
    ("name", "issuer"),
    [("ann", "https://id"), ("key", None), ("head of sales", None), ("ann of x", "https://id")],
)
def test_of_the_caller_a_row_has_the_origin_alone(name: str, issuer: str | None) -> None:
    principal = Principal(name=name, issuer=issuer, groups=("staff",))
    row = row_of(
        new_event(PLAIN.model_copy(update={"principal": principal}), source="/test"), partition=0, offset=0
    )
    again = record_of(row).principal
    assert again is not None
    assert (row["principal"], again.origin, again.groups) == (principal.origin, principal.origin, ())
    assert record_of(row | {"principal": None}) == PLAIN


def test_the_table_lies_in_the_store(tmp_path: Path) -> None:
    assert table_url("file:///x", tmp_path) == str(tmp_path / "records")
    assert table_url("s3://bucket/x/", None) == "s3://bucket/x/records"
