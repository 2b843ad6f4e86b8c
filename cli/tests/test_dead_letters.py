"""Dead letters as a person reads them."""

from __future__ import annotations

from tunewheel_cli.dead_letters import SHOWN_CHARACTERS, DeadLetter, letter_topics
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.topics import TICKET_PUBLISHED, TRAIN_FAILED
from tunewheel_runtime.deadletter import Position, Undecoded, dead_letter


def record(value: bytes) -> Undecoded:
    source = Undecoded(Position("ticket.published", 2, 41), b"T-1", value, {"ce_id": b"1"})
    letter = dead_letter(source, InvalidEvent(field="body", reason="is blank; send text"), service="ingest")
    return Undecoded(Position(letter.topic, 0, 0), letter.key, letter.value, letter.headers)


def test_a_letter_says_who_refused_what_and_why() -> None:
    assert DeadLetter.of(record(b'{"body": ""}')).as_json() == {
        "topic": "ticket.published",
        "partition": 2,
        "offset": 41,
        "service": "ingest",
        "field": "body",
        "reason": "is blank; send text",
        "message": '{"body": ""}',
        "event_id": "1",
        "kind": "invalid",
    }


def test_what_is_no_text_or_long_is_shown_as_far_as_it_goes() -> None:
    assert DeadLetter.of(record(b"caf\xe9")).message == "caf\\xe9"
    assert len(DeadLetter.of(record(b"x" * 5_000_000)).message) == SHOWN_CHARACTERS
    assert DeadLetter.of(Undecoded(Position("a.dlq", 0, 0), None, None, {"x": b""})).topic == "a"


def test_only_topics_that_a_service_consumes_have_letters() -> None:
    assert letter_topics([TICKET_PUBLISHED, TRAIN_FAILED]) == ["ticket.published.dlq"]
