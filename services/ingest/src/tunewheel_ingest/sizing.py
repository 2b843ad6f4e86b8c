"""Limits the size of a record on the log."""

from __future__ import annotations

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES

MAX_RECORD_BYTES = MAX_MESSAGE_BYTES - 16 * 1024
"""The largest value of a message. Kafka's limit includes the key and the headers."""
LONGEST_CHARACTER = 6
"""The most bytes that one character takes in JSON: \\u00XX."""


def require_size(record: RecordIngested, limit: int = MAX_RECORD_BYTES) -> None:
    """Raise ``InvalidEvent`` if ``record`` is too large for the log. A record can be larger than its event:
    it holds a document twice, whole and in sections, and escapes an answer's quotes twice."""
    characters = sum(
        map(len, (record.title, record.input, record.output or "", record.rejected_output or ""))
    )
    characters += sum(len(turn.content) + 50 for turn in record.history)
    characters += sum(len(key) + len(value) + 10 for key, value in record.attributes.items())
    characters += sum(
        len(s.text) + len(s.summary or "") + sum(map(len, s.path)) + 300 for s in record.sections
    )
    if characters * LONGEST_CHARACTER < limit:
        return  # most records need no second encoding
    size = len(record.model_dump_json().encode())
    if size > limit:
        raise InvalidEvent(
            field="file" if record.sections else "(body)",
            reason=f"makes a record of {size} bytes, the log takes {limit}; publish it in parts, "
            "such as one per chapter",
        )
