"""What becomes of records on their way to a handler: counted once each, refused one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from tunewheel_contracts import topics
from tunewheel_contracts.errors import InvalidEvent, TransientError, TunewheelError
from tunewheel_contracts.event import Envelope, KafkaRecord, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.consuming import CRASHES, Consumption
from tunewheel_runtime.deadletter import Check, DeadLetters, unchecked
from tunewheel_runtime.handling import Instruments
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.telemetry import Telemetry, make_telemetry

SPEC = topics.DATASET_REQUESTED
ONCE = Backoff(1, 0.001, 0.001)


class Log:
    """Stands where the publisher does; refuses what bears a value with ``too large`` in it."""

    def __init__(self) -> None:
        self.sent: list[KafkaRecord] = []
        self.warned: list[str | None] = []

    def warn(self, _: str, text: str | None) -> None:
        self.warned.append(text)

    def sign(self, event: Envelope[Any]) -> Envelope[Any]:
        return event

    async def send(self, records: Sequence[KafkaRecord]) -> None:
        if any(b"too large" in r.value for r in records if not r.topic.endswith(".dlq")):
            raise InvalidEvent(field="(body)", reason="is over 4194304 bytes; shorten it")
        self.sent.extend(records)

    async def publish_many(self, envelopes: Sequence[Envelope[Any]]) -> None:
        await self.send([envelope.to_kafka() for envelope in envelopes])

    @property
    def letters(self) -> list[KafkaRecord]:
        return [record for record in self.sent if record.topic.endswith(".dlq")]


def consumption(
    log: Any,
    *,
    limit: int = 5,
    window: int = 10,
    telemetry: Telemetry | None = None,
    service: str = "test",
    check: Check = unchecked,
) -> Consumption:
    telemetry = telemetry or make_telemetry("test", None)
    counter = telemetry.meter.create_counter("test")
    letters = DeadLetters(log, ONCE, counter, log.warn, service=service, limit=limit, window=window)
    return Consumption(log, letters, ONCE, Instruments.of(telemetry), check=check)


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


async def test_a_record_that_kafka_refuses_is_one_dead_letter_and_the_rest_is_published() -> None:
    log = Log()
    made = consumption(log, limit=5, window=10)

    async def ask(event: Envelope[Any]) -> list[Envelope[Any]]:
        return [request(f"{event.data.request} {n}") for n in range(2)]

    await made.consume_each(SPEC, ask, records("first", "too large", "last"))
    told = [record.value for record in log.sent if not record.topic.endswith(".dlq")]
    assert [b"first" in told[0], b"first" in told[1], b"last" in told[2], b"last" in told[3]] == [True] * 4
    (letter,) = log.letters
    assert letter.headers["dlq_source_offset"] == b"1"
    assert b"shorten it" in letter.headers["dlq_reason"]


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


def calls(telemetry: Telemetry) -> dict[str, int]:
    """Return how many calls ended in which way."""
    beginning = 'tunewheel_handler_seconds_count{service="test",topic="dataset.requested",outcome="'
    lines = [line.removeprefix(beginning) for line in telemetry.metrics_text().splitlines()]
    return {line.split('"')[0]: int(line.split()[1]) for line in lines if '"} ' in line[:14]}


async def test_every_call_of_a_handler_is_measured_with_its_outcome() -> None:
    telemetry = make_telemetry("test", None)
    made = consumption(Log(), telemetry=telemetry)

    async def broken(_: Any) -> None:
        raise ZeroDivisionError("a bug")

    good, bad = records("good", "bad")
    await made.consume_one(SPEC, accept, good)
    await made.consume_one(SPEC, accept, bad)
    await made.consume_one(SPEC, refuse, good)
    assert calls(telemetry) == {"done": 1, "refused": 2}
    await made.consume_each(SPEC, accept, [good, good])
    await made.consume_batch(SPEC, accept, [good, good])
    assert calls(telemetry) == {"done": 3, "refused": 2}, "a batch is one call"
    await made.consume_each(SPEC, accept, [good, bad])
    await made.consume_batch(SPEC, accept, [good, bad])
    assert calls(telemetry) == {"done": 3, "refused": 4}
    for call, batch in ((made.consume_one, good), (made.consume_each, [good]), (made.consume_batch, [good])):
        with pytest.raises(ZeroDivisionError):
            await call(SPEC, broken, batch)  # type: ignore[arg-type]
    assert calls(telemetry) == {"done": 3, "refused": 4, "failed": 3}


async def test_a_span_is_in_the_trace_of_its_event_and_a_batchs_is_linked_to_all() -> None:
    spans = InMemorySpanExporter()
    telemetry = make_telemetry("test", None, span_processors=[SimpleSpanProcessor(spans)])
    made = consumption(Log(), telemetry=telemetry)
    one, other, bare = records("one", "other", "bare")

    def carrying(record: Any, trace: int) -> Any:
        parent = ("traceparent", f"00-{trace:032x}-{9:016x}-01".encode())
        return replace(record, headers=(*record.headers, parent))

    await made.consume_one(SPEC, accept, carrying(one, 7))
    (span,) = spans.get_finished_spans()
    assert (span.name, span.kind, span.context.trace_id) == (
        "dataset.requested process",
        SpanKind.CONSUMER,
        7,
    )
    told = dict(span.attributes or {})
    assert (told["tunewheel.project"], told["tunewheel.outcome"]) == ("desk", "done")
    assert told["messaging.message.id"]
    spans.clear()
    await made.consume_each(SPEC, accept, [carrying(one, 7), carrying(other, 8), bare])
    (span,) = spans.get_finished_spans()
    assert [link.context.trace_id for link in span.links] == [7, 8]
    assert span.parent is None


def ticket(name: str) -> Envelope[TicketPublished]:
    data = TicketPublished(project="desk", ticket_id=name, body="The bell is broken.")
    return new_event(data, source="/test")


def on_log(*events: Envelope[Any]) -> list[Any]:
    return [
        ConsumerRecord(
            event.data.type, 0, n, 0, 0, b"k", event.to_kafka().value, None, 0, 0,
            tuple(event.to_kafka().headers.items()),
        )
        for n, event in enumerate(events)
    ]  # fmt: skip


@pytest.mark.parametrize("how", ["consume_one", "consume_each", "consume_batch"])
async def test_an_upstream_record_on_which_the_handler_fails_is_parked_alone(how: str) -> None:
    log, tried = Log(), list[str]()
    made = consumption(log)

    def handle(event: Envelope[TicketPublished]) -> Envelope[DatasetRequested]:
        tried.append(event.data.ticket_id)
        if event.data.ticket_id == "bad":
            raise UnicodeError("a secret")
        return request(event.data.ticket_id)

    async def handle_one(event: Envelope[Any]) -> Envelope[Any]:
        return handle(event)

    async def handle_all(deliveries: Sequence[Any]) -> list[Envelope[Any]]:
        return [handle(delivery.event) for delivery in deliveries]

    batch = on_log(ticket("first"), ticket("bad"), ticket("last"))
    if how == "consume_one":
        for record in batch:
            await made.consume_one(topics.TICKET_PUBLISHED, handle_one, record)
    else:
        handler: Any = handle_one if how == "consume_each" else handle_all
        await getattr(made, how)(topics.TICKET_PUBLISHED, handler, batch)
    (letter,) = log.letters
    assert letter.headers["dlq_kind"] == b"crashed"
    assert letter.headers["dlq_source_offset"] == b"1"
    assert b"UnicodeError at tunewheel_runtime/consuming.py" in letter.headers["dlq_reason"]
    assert b"a secret" not in letter.headers["dlq_reason"]
    assert tried.count("bad") == CRASHES + (how == "consume_batch")
    sent = {record.value for record in log.sent} - {letter.value}
    assert len(sent) == 2


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), OSError(28, "disk full"), TunewheelError("a decision")]
)
async def test_an_error_of_the_machine_or_on_a_topic_of_our_own_stops_the_service(error: Exception) -> None:
    log, seen = Log(), list[Any]()

    async def broken(event: Any) -> None:
        seen.append(event)
        raise error

    own = isinstance(error, ZeroDivisionError)
    event = request("one") if own else ticket("T-1")
    with pytest.raises((type(error), TransientError)):
        await consumption(log).consume_one(SPEC if own else topics.TICKET_PUBLISHED, broken, on_log(event)[0])
    assert (log.letters, len(seen)) == ([], 1)


async def test_an_error_that_goes_away_parks_nothing() -> None:
    log, seen = Log(), list[Any]()

    async def fails_twice(event: Any) -> None:
        seen.append(event)
        if len(seen) < CRASHES:
            raise ZeroDivisionError

    await consumption(log).consume_one(topics.TICKET_PUBLISHED, fails_twice, on_log(ticket("T-1"))[0])
    assert (log.letters, len(seen)) == ([], CRASHES)


async def nobody(_: Any) -> None:
    raise InvalidEvent(field="messages", reason="hold no user message")


@pytest.mark.parametrize(
    "topic", [topics.FEEDBACK_RECEIVED, topics.ERASURE_REQUESTED, topics.TICKET_PUBLISHED]
)
@pytest.mark.parametrize("fault", ["signature", "shape"])
async def test_an_upstream_record_that_no_service_can_read_is_one_letter(
    topic: TopicSpec, fault: str
) -> None:
    def check(*_: Any) -> Any:
        raise InvalidEvent(field="signature", reason="was changed")

    value = b"{" if fault == "shape" else example_of(topic)
    head = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/x", "ce_type": topic.name.encode()}
    record: Any = ConsumerRecord(topic.name, 0, 7, 0, 0, b"", value, None, 0, 0, tuple(head.items()))
    written: dict[str, list[Any]] = {}
    for service in topic.handled_by:
        log = Log()
        made = consumption(log, service=service, check=check, limit=0, window=1)
        await made.consume_one(topic, nobody, record)
        await made.consume_batch(topic, accept, [record])
        await made.consume_each(topic, accept, [record])
        written[service] = [letter.headers["dlq_field"] for letter in log.letters]
        assert log.warned, "a flood is told by each service"
    first, *others = topic.handled_by
    assert written[first] == [b"signature" if fault == "signature" else b"(body)"] * 3
    assert all(written[one] == [] for one in others)


async def test_what_only_one_services_handler_refuses_is_a_letter_of_that_service() -> None:
    log, topic = Log(), topics.FEEDBACK_RECEIVED
    head = {"ce_specversion": b"1.0", "ce_id": b"1", "ce_source": b"/x", "ce_type": topic.name.encode()}
    record: Any = ConsumerRecord(
        topic.name, 0, 7, 0, 0, b"", example_of(topic), None, 0, 0, tuple(head.items())
    )
    await consumption(log, service=topic.handled_by[1]).consume_one(topic, nobody, record)
    assert [letter.headers["dlq_field"] for letter in log.letters] == [b"messages"]


def example_of(topic: TopicSpec) -> bytes:
    folder = Path(__file__).parents[2] / "contracts/examples" / topic.name / "valid"
    return min(folder.iterdir()).read_bytes()
