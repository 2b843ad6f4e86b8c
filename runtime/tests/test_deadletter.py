from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import KafkaRecord
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES
from tunewheel_runtime.deadletter import (
    LONGEST_FIELD,
    MOST_STREAMS,
    DeadLetters,
    Position,
    Undecoded,
    dead_letter,
    letter_id,
    original,
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
        "dlq_kind": b"invalid",
        "dlq_field": b"body",
        "dlq_reason": b"is blank; send text",
        "dlq_source_topic": b"ticket.published",
        "dlq_source_partition": b"2",
        "dlq_source_offset": b"41",
    }


def test_the_letter_of_another_systems_topic_lies_with_those_of_ours() -> None:
    record = Undecoded(Position("crm.cases", 1, 7), b"k", b"\0\1", {}, letters="ticket.published")
    letter = dead_letter(record, InvalidEvent(field="body", reason="is missing"), service="ingest")
    assert (letter.topic, letter.value) == ("ticket.published.dlq", b"\0\1")
    assert letter.headers["dlq_source_topic"] == b"crm.cases"


def test_a_dead_letter_is_identified_by_service_and_source_position() -> None:
    def on_log(offset: int, headers: dict[str, bytes]) -> Undecoded:
        return Undecoded(Position("ticket.published.dlq", 0, offset), None, b"", headers)

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


Told = list[tuple[str, str | None]]


def letters(sent: Any, told: Told, *, limit: int, window: int) -> DeadLetters:
    def warn(name: str, text: str | None) -> None:
        told.append((name, text))

    counter = NoOpMeterProvider().get_meter("test").create_counter("test")
    backoff = Backoff(1, 0.001, 0.001)
    return DeadLetters(sent, backoff, counter, warn, service="ingest", limit=limit, window=window)


def refused_of(project: str, topic: str = "ticket.published") -> Undecoded:
    return Undecoded(Position(topic, 0, 1), b"key", b"{}", {"ce_project": project.encode()})


async def test_a_flood_is_told_once_and_every_refused_message_still_becomes_a_letter() -> None:
    sent, told = Sent(), Told()
    dead = letters(sent, told, limit=3, window=10)
    for _ in range(20):
        await dead.write(refused_of("desk"), ERROR)
    assert len(sent.records) == 20
    ((name, text),) = told
    assert name == "dead letters on ticket.published of project 'desk'"
    assert text is not None
    assert "4 of the latest 4 messages" in text
    assert "is blank; send text" in text


async def test_the_limit_holds_per_topic_and_project() -> None:
    told = Told()
    dead = letters(Sent(), told, limit=3, window=10)
    for _ in range(3):
        await dead.write(refused_of("desk"), ERROR)
        await dead.write(refused_of("shop"), ERROR)
        await dead.write(refused_of("desk", topic="document.published"), ERROR)
    assert told == []


async def test_a_flood_is_over_once_enough_messages_of_the_project_were_fine() -> None:
    told = Told()
    dead = letters(Sent(), told, limit=3, window=10)
    for _ in range(5):
        await dead.write(refused_of("desk"), ERROR)
    for _ in range(20):
        dead.passed("ticket.published", "shop")
    assert len(told) == 1
    for _ in range(7):
        dead.passed("ticket.published", "desk")
    assert [text is None for _, text in told] == [False, True]


async def test_a_bad_one_now_and_then_is_no_flood() -> None:
    sent, told = Sent(), Told()
    dead = letters(sent, told, limit=3, window=10)
    for _ in range(50):
        await dead.write(refused_of("desk"), ERROR)
        for _ in range(9):
            dead.passed("ticket.published", "desk")
    assert (len(sent.records), told) == (50, [])


async def test_made_up_projects_do_not_fill_the_memory() -> None:
    told = Told()
    dead = letters(Sent(), told, limit=1, window=10)
    for n in range(MOST_STREAMS + 10):
        for _ in range(2):
            dead.refuse(refused_of(f"made-up-{n}"), ERROR)
    assert sum(1 if text is not None else -1 for _, text in told) == MOST_STREAMS


def test_a_long_field_name_is_cut_because_it_may_come_from_the_message() -> None:
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


def test_the_message_in_a_letter_is_written_again_as_it_was_and_nobody_signs_it() -> None:
    sent = {"ce_id": b"1", "ce_type": b"ticket.published", "ce_signature": b"s", "traceparent": b"t"}
    record = Undecoded(Position("ticket.published", 2, 9), b"k", b"\xff", sent)
    letter = dead_letter(record, InvalidEvent(field="body", reason="is wrong"), service="ingest")
    found = Undecoded(Position(letter.topic, 0, 3), letter.key, letter.value, letter.headers)
    assert letter_id(found) == "ingest:ticket.published:2:9"
    assert original(found) == KafkaRecord("ticket.published", b"k", b"\xff", sent, is_copy=True)


@pytest.mark.parametrize("cut", [{"dlq_cut_bytes": b"9"}, {"dlq_field": b"(erased)"}])
def test_a_letter_without_its_whole_message_has_nothing_to_write_again(cut: dict[str, bytes]) -> None:
    with pytest.raises(InvalidEvent):
        original(Undecoded(Position("ticket.published.dlq", 0, 3), b"k", b"{}", cut))
