from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import KafkaRecord
from tunewheel_runtime.deadletter import (
    DeadLetterLimitExceeded,
    DeadLetters,
    Position,
    Undecoded,
    dead_letter,
)
from tunewheel_runtime.retry import Backoff

ERROR = InvalidEvent(field="body", reason="is blank; send text")
RECORD = Undecoded(
    Position("ticket.published", 2, 41), b"key", b"\xff raw", {"ce_id": b"1", "dlq_field": b"old"}
)


def test_carries_the_original_bytes_the_reason_and_the_place() -> None:
    letter = dead_letter(RECORD, ERROR, service="ingest")
    assert (letter.topic, letter.key, letter.value) == ("ticket.published.dlq", b"key", b"\xff raw")
    assert letter.headers == {
        "ce_id": b"1",
        "dlq_service": b"ingest",
        "dlq_field": b"body",
        "dlq_reason": b"is blank; send text",
        "dlq_source_topic": b"ticket.published",
        "dlq_source_partition": b"2",
        "dlq_source_offset": b"41",
    }


class Sent:
    """Stands where the publisher does and keeps what was sent."""

    def __init__(self) -> None:
        self.records: list[KafkaRecord] = []

    async def send(self, records: list[KafkaRecord]) -> None:
        self.records.extend(records)


def letters(sent: Any, *, limit: int, window: int) -> DeadLetters:
    counter = NoOpMeterProvider().get_meter("test").create_counter("test")
    backoff = Backoff(1, 0.001, 0.001)
    return DeadLetters(sent, backoff, counter, service="ingest", limit=limit, window=window)


async def test_a_flood_stops_the_service_instead_of_dead_lettering_everything() -> None:
    sent = Sent()
    dead = letters(sent, limit=3, window=10)
    for _ in range(3):
        await dead.write(RECORD, ERROR)
    with pytest.raises(DeadLetterLimitExceeded, match="Mend the upstream"):
        await dead.write(RECORD, ERROR)
    assert len(sent.records) == 3


async def test_a_bad_one_now_and_then_never_stops_it() -> None:
    sent = Sent()
    dead = letters(sent, limit=3, window=10)
    for _ in range(50):
        await dead.write(RECORD, ERROR)
        dead.passed(9)
    assert len(sent.records) == 50
