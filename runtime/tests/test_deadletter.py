from __future__ import annotations

from typing import Any

import pytest
from aiokafka import ConsumerRecord
from opentelemetry.metrics import NoOpMeterProvider
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import KafkaRecord
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES
from tunewheel_runtime.deadletter import (
    LONGEST_FIELD,
    DeadLetterLimitExceeded,
    DeadLetters,
    Position,
    Undecoded,
    dead_letter,
    refused,
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


def test_it_is_told_by_who_refused_what_wherever_it_lies() -> None:
    def on_log(offset: int, headers: dict[str, bytes]) -> Any:
        return ConsumerRecord(
            "ticket.published.dlq", 0, offset, 0, 0, None, b"", None, 0, 0, tuple(headers.items())
        )

    headers = dead_letter(RECORD, ERROR, service="ingest").headers | {"ce_type": b"\xff"}
    assert refused(on_log(5, headers)) == refused(on_log(6, headers)) == ("ingest", RECORD.position)
    assert refused(on_log(7, {})) == ("", Position("ticket.published.dlq", 0, 7))
    assert refused(on_log(8, headers | {"dlq_source_offset": b"x"}))[1].offset == 8


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
        for _ in range(9):
            dead.passed()
    assert len(sent.records) == 50


def test_what_names_the_field_is_kept_short_for_it_may_come_from_the_message() -> None:
    letter = dead_letter(RECORD, InvalidEvent(field="x" * 4_000_000, reason="is no field"), service="ingest")
    assert len(letter.headers["dlq_field"]) == LONGEST_FIELD


def test_a_message_larger_than_the_log_takes_is_cut_and_tells_what_it_was() -> None:
    value = b"0" * (MAX_MESSAGE_BYTES * 3)
    headers = {"ce_id": b"1", "ce_subject": b"s" * 2_000_000, "other": b"o" * 2_000_000}
    record = Undecoded(RECORD.position, b"k" * 2_000_000, value, headers)
    letter = dead_letter(record, ERROR, service="ingest")
    assert letter.headers["dlq_cut_bytes"] == str(len(value)).encode()
    assert letter.headers["dlq_cut_sha256"] == content_sha256(value).encode()
    assert (letter.headers["ce_id"], letter.headers["dlq_field"]) == (b"1", b"body")
    held = len(letter.key) + len(letter.value) + sum(map(len, letter.headers.values()))
    assert held < MAX_MESSAGE_BYTES
    assert value.startswith(letter.value)


def test_the_largest_message_that_the_log_takes_is_kept_whole() -> None:
    record = Undecoded(RECORD.position, b"key", b"0" * (MAX_MESSAGE_BYTES - 200), {"ce_id": b"1"})
    letter = dead_letter(record, ERROR, service="ingest")
    assert (letter.value, "dlq_cut_bytes" in letter.headers) == (record.value, False)
