"""Which refused messages an erasure takes; ``tests/integration/test_erasure.py`` has the topics."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import KafkaRecord
from tunewheel_runtime.deadletter import DeadLetters, Position, Undecoded
from tunewheel_runtime.erased_letters import _message, is_erased
from tunewheel_runtime.retry import Backoff

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
PERSON = Erasure(project="desk", customer="C-7", until=NOON)
EARLIER, LATER = ({"ce_time": (NOON + timedelta(hours=h)).isoformat().encode()} for h in (-1, 1))


def message(value: bytes | None, *, key: bytes | None = None, **more: Any) -> Undecoded:
    return Undecoded(Position("ticket.published", 0, 4), key, value, **({"headers": EARLIER} | more))


@pytest.mark.parametrize(
    "value",
    [
        b'{"project": "desk", "customer": "C-7"}',
        b'{"custmer": "C-7", "body": "x"}',
        b'{"data": [{"customer": "C-7"}]}',
        b'"C-7"',
        b'{"customer": "C-7", "body": "never closed',
        b"id;customer\n1;C-7;\xff",
        b"\0\0\0\0\x07\x06C-7xHi",  # Avro: what follows a name may look like a letter
        b"\0\0\0\0\x07\x03C-7xHi",  # Protobuf
    ],
)
def test_a_message_that_names_the_person_goes(value: bytes) -> None:
    assert is_erased(message(value), [PERSON])


@pytest.mark.parametrize(
    "value",
    [
        b'{"project": "shop", "customer": "C-7"}',
        b'{"customer": "C-77", "body": "as C-7 said"}',
        b"customer C-77, and C-7-b",
        b"\0\0\0\0\x07\x08C-77\x04Hi",
        b"\0\0\0\0\x07AAC-7AA",
        b"",
        None,
        b"[" * 100_000,
    ],
)
def test_dead_letters_of_other_people_and_projects_stay(value: bytes | None) -> None:
    assert not is_erased(message(value), [PERSON])


@pytest.mark.parametrize("logged", [None, NOON + timedelta(hours=2)])
@pytest.mark.parametrize(
    ("project", "hours", "goes"), [("desk", -1, True), ("shop", -1, False), ("desk", 1, False)]
)
@pytest.mark.parametrize("form", ["data", "data_base64"])
def test_a_structured_message_goes_by_what_it_says_inside(
    form: str, project: str, hours: int, goes: bool, logged: datetime | None
) -> None:
    data: Any = {"project": project, "customer": "C-7"}
    inside = data if form == "data" else b64encode(json.dumps(data).encode()).decode()
    event = {"specversion": "1.0", "time": (NOON + timedelta(hours=hours)).isoformat(), form: inside}
    letter = message(
        json.dumps(event).encode(),
        headers={"content-type": b"application/cloudevents+json", "dlq_service": b"ingest"},
        logged_ms=logged and int(logged.timestamp() * 1000),
    )
    assert is_erased(letter, [PERSON]) is goes
    assert is_erased(_message(letter), [PERSON]) is goes


@pytest.mark.parametrize("subject", ["7", "C-7", "é", "n" * 64, "n" * 200])
def test_of_two_tenants_binary_letters_each_loses_its_own(subject: str) -> None:
    desk = PERSON.model_copy(update={"customer": subject})
    own, other = (EARLIER | {"ce_project": name} for name in (b"desk", b"shop"))
    part = b"\0\0\0\0\x01AB" + subject.encode() + b"AB"
    assert is_erased(message(part, headers=own), [desk]), "in doubt it goes"
    assert not is_erased(message(part, headers=other), [desk])
    assert not is_erased(message(part), [desk]), "whose it is nobody knows"
    size = len(subject.encode())
    for length in (size, 2 * size):
        before = bytes([length]) if length < 128 else bytes([length & 127 | 128, length >> 7])
        whole = b"\0\0\0\0\x01A" + before + subject.encode() + b"AB"
        assert is_erased(message(whole), [desk])
        assert not is_erased(message(whole, headers=other), [desk])


def test_numbers_keys_and_subjects_name_people_too() -> None:
    seven = PERSON.model_copy(update={"customer": None, "source_id": "7"})
    assert is_erased(message(b'{"ticket_id": 7}'), [PERSON, seven])
    assert is_erased(message(b"{}", key=b"C-7"), [PERSON])
    assert is_erased(message(b"{}", headers=EARLIER | {"ce_subject": b"C-7"}), [PERSON])
    assert not is_erased(message(b"{}", key=b"C-7", headers=EARLIER | {"ce_project": b"shop"}), [PERSON])
    assert not is_erased(message(b'{"ticket_id": 7}'), [])


def test_no_pattern_is_made_for_whom_a_letter_does_not_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """One for each of thousands of erasures takes seconds, in which the service does nothing else."""
    searched: list[str] = []
    search = re.search
    monkeypatch.setattr("re.search", lambda word, text: searched.append(word) or search(word, text))
    others = [PERSON.model_copy(update={"customer": f"D-{number}"}) for number in range(3)]
    assert not is_erased(message(b'{"customer": "C-8"}'), [PERSON, *others])
    assert not is_erased(message(b"no JSON of C-8"), [PERSON, *others])
    assert not searched
    assert is_erased(message(b"no JSON of C-7"), [*others, PERSON])
    assert len(searched) == 1


@pytest.mark.parametrize("topic", ["erasure.requested", "erasure.requested.dlq"])
def test_a_request_that_was_refused_can_still_be_read(topic: str) -> None:
    request = replace(message(b'{"customer": "C-7"}'), position=Position(topic, 0, 4))
    assert not is_erased(request, [PERSON])


def test_dead_letters_published_after_the_erasure_stay() -> None:
    named = b'{"customer": "C-7"}'
    assert not is_erased(message(named, headers=LATER), [PERSON])
    logged = int(NOON.timestamp() * 1000)
    assert is_erased(message(named, headers=LATER, logged_ms=logged), [PERSON]), "nothing is from the future"
    unreadable = {"ce_time": b"yesterday"}
    assert is_erased(message(named, headers=unreadable, logged_ms=logged), [PERSON])
    assert not is_erased(message(named, headers=unreadable, logged_ms=logged + 1), [PERSON])
    assert is_erased(message(named, headers=unreadable), [PERSON]), "in doubt it goes"


async def test_a_message_that_is_read_again_leaves_its_place_in_the_letters_and_nothing_else() -> None:
    sent: list[KafkaRecord] = []
    known: list[Erasure] = []

    class Publisher:
        async def send(self, records: list[KafkaRecord]) -> None:
            sent.extend(records)

    async def refresh() -> None:
        known[:] = [PERSON]

    counter = NoOpMeterProvider().get_meter("test").create_counter("test")
    publisher: Any = Publisher()
    letters = DeadLetters(
        publisher, Backoff(1, 0.001, 0.001), counter, lambda *_: None, service="ingest", limit=9, window=9
    )
    letters.withhold(lambda record: is_erased(record, known), refresh)
    error = InvalidEvent(field="C-7", reason="has a C-7 too many")
    about = message(b'{"customer": "C-7"}', key=b"C-7", headers=EARLIER | {"ce_subject": b"C-7"})
    await letters.write(about, error)
    await letters.write(message(b'{"customer": "C-8"}'), error)
    gone, kept = sent
    assert b"C-7" not in b"".join((gone.key, gone.value, *gone.headers.values()))
    assert gone.headers["dlq_source_offset"] == b"4"
    assert gone.headers["dlq_field"] == b"(erased)"
    assert kept.value == b'{"customer": "C-8"}'
