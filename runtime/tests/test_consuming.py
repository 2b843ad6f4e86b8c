"""What becomes of records on their way to a handler: counted once each, refused one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from opentelemetry.metrics import NoOpMeterProvider
from tunewheel_contracts import topics
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, KafkaRecord, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_runtime.consuming import Consumption, Instruments
from tunewheel_runtime.deadletter import DeadLetters
from tunewheel_runtime.retry import Backoff

SPEC = topics.DATASET_REQUESTED
ONCE = Backoff(1, 0.001, 0.001)


class Log:
    """Stands where the publisher does; refuses what bears a value with ``too large`` in it."""

    def __init__(self) -> None:
        self.sent: list[KafkaRecord] = []
        self.warned: list[str | None] = []

    def warn(self, _: str, text: str | None) -> None:
        self.warned.append(text)

    async def send(self, records: Sequence[KafkaRecord]) -> None:
        if any(b"too large" in r.value for r in records if not r.topic.endswith(".dlq")):
            raise InvalidEvent(field="(body)", reason="is over 4194304 bytes; split it")
        self.sent.extend(records)

    async def publish_many(self, envelopes: Sequence[Envelope[Any]]) -> None:
        await self.send([envelope.to_kafka() for envelope in envelopes])

    @property
    def letters(self) -> list[KafkaRecord]:
        return [record for record in self.sent if record.topic.endswith(".dlq")]


def consumption(log: Any, *, limit: int, window: int) -> Consumption:
    meter = NoOpMeterProvider().get_meter("test")
    letters = DeadLetters(
        log, ONCE, meter.create_counter("test"), log.warn, service="test", limit=limit, window=window
    )
    instruments = Instruments(meter.create_counter("consumed"), meter.create_histogram("seconds"))
    return Consumption(log, letters, ONCE, instruments)


def request(name: str) -> Envelope[DatasetRequested]:
    data = DatasetRequested(project="desk", reason=BuildReason.COMMAND, request=name)
    return new_event(data, source="/test")


def records(*names: str) -> list[Any]:
    """Return records on the log; one named ``bad`` cannot be decoded."""
    made: list[Any] = []
    for offset, name in enumerate(names):
        sent = request(name).to_kafka()
        value = b"{" if name == "bad" else sent.value
        made.append(
            ConsumerRecord(
                sent.topic, 0, offset, 0, 0, sent.key, value, None, 0, 0, tuple(sent.headers.items())
            )
        )
    return made


async def accept(_: Any) -> None:
    return None


async def refuse(_: Any) -> None:
    raise InvalidEvent(field="project", reason="is not declared")


QUARTER = ("bad", "good", "good", "good") * 10


async def test_a_quarter_refused_is_no_flood_however_large_the_batch() -> None:
    log = Log()
    made = consumption(log, limit=5, window=10)
    await made.consume_each(SPEC, accept, records(*QUARTER))
    await made.consume_batch(SPEC, accept, records(*QUARTER))
    assert (len(log.letters), log.warned) == (20, [])


async def test_a_handler_that_refuses_everything_is_told() -> None:
    """Each message counts once, whoever refuses it, so that the share can exceed half."""
    log = Log()
    made = consumption(log, limit=5, window=10)
    for record in records(*("good",) * 5):
        await made.consume_one(SPEC, refuse, record)
    assert log.warned == []
    await made.consume_each(SPEC, refuse, records(*("good",) * 5))
    (told,) = log.warned
    assert "6 of the latest 6 messages of project 'desk' on dataset.requested were refused" in (told or "")
    assert len(log.letters) == 10


@pytest.mark.parametrize("how", ["consume_one", "consume_each"])
async def test_a_refusal_counts_for_the_project_of_the_event_whether_or_not_its_headers_name_it(
    how: str,
) -> None:
    log = Log()
    made = consumption(log, limit=5, window=10)
    for record in records(*("good",) * 6):
        bare = replace(record, headers=tuple(h for h in record.headers if h[0] != "ce_project"))
        await getattr(made, how)(SPEC, refuse, bare if how == "consume_one" else [bare])
    (told,) = log.warned
    assert "messages of project 'desk' on dataset.requested were refused" in (told or "")


@pytest.mark.parametrize("how", ["consume_one", "consume_each", "consume_batch"])
async def test_a_tombstone_is_no_event_and_no_dead_letter(how: str) -> None:
    log, seen = Log(), list[Any]()
    made = consumption(log, limit=5, window=10)
    tombstone = ConsumerRecord("project.declared", 0, 0, 0, 0, b"desk", None, None, 0, 0, ())

    async def handle(event: Any) -> None:
        seen.append(event)

    await getattr(made, how)(
        topics.PROJECT_DECLARED, handle, tombstone if how == "consume_one" else [tombstone]
    )
    assert (log.sent, seen) == ([], [])


async def test_what_the_log_refuses_of_a_batch_is_one_dead_letter_and_the_rest_is_published() -> None:
    log = Log()
    made = consumption(log, limit=5, window=10)

    async def ask(event: Envelope[Any]) -> list[Envelope[Any]]:
        return [request(f"{event.data.request} {n}") for n in range(2)]

    await made.consume_each(SPEC, ask, records("first", "too large", "last"))
    told = [record.value for record in log.sent if not record.topic.endswith(".dlq")]
    assert [b"first" in told[0], b"first" in told[1], b"last" in told[2], b"last" in told[3]] == [True] * 4
    (letter,) = log.letters
    assert letter.headers["dlq_source_offset"] == b"1"
    assert b"split it" in letter.headers["dlq_reason"]


async def test_a_batch_that_stops_the_service_leaves_no_letters_to_be_written_again() -> None:
    """It comes again at the next start."""
    log = Log()

    async def broken(_: Any) -> None:
        raise ZeroDivisionError("a bug")

    for name in ("consume_each", "consume_batch") * 3:  # starts
        made = consumption(log, limit=5, window=10)
        with pytest.raises(ZeroDivisionError):
            await getattr(made, name)(SPEC, broken, records("bad", "good"))
    assert log.letters == []
    await made.consume_each(SPEC, accept, records(*("good",) * 4, *("bad",) * 12))
    assert [int(letter.headers["dlq_source_offset"]) for letter in log.letters] == list(range(4, 16))
