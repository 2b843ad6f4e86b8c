"""Records as ingest makes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.identity import content_id

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def record(document_id: str, text: str, **changes: Any) -> RecordIngested:
    """Return the record that ingest makes of a document, named by its content."""
    values: dict[str, Any] = {
        "project": "shop",
        "record_id": content_id("rec", [document_id, text]),
        "kind": RecordKind.DOCUMENT,
        "source_id": document_id,
        "source_event_id": "e",
        "title": "Handbook",
        "input": text,
        "group": document_id,
    }
    return RecordIngested.model_validate(values | changes)
