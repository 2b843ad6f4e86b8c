"""Consumes records: decodes them, calls the handler with retries, publishes its events, commits the offset.

Delivery is at least once: the offset is committed only after the broker acknowledged the handler's events. An
invalid message becomes a dead letter, and the partition goes on. So does a message of an upstream topic on
which its handler fails again and again. If the dead letter cannot be written, the service stops; it never
skips a message.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from tunewheel_contracts.errors import InvalidEvent, TunewheelError
from tunewheel_contracts.event import Envelope, Event, KafkaRecord
from tunewheel_contracts.topics import TopicSpec

from tunewheel_runtime.deadletter import (
    Check,
    Crashed,
    DeadLetters,
    Position,
    Refusal,
    Unreadable,
    position_of,
    unchecked,
    undecoded,
)
from tunewheel_runtime.handling import Handling, Instruments, Outcome, Record
from tunewheel_runtime.newer_releases import NewerReleases
from tunewheel_runtime.publishing import Produced, Publisher, as_list
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.telemetry import CARRIERS

log = structlog.get_logger(__name__)
E = TypeVar("E", bound=Event)
T = TypeVar("T")
FORESEEN = (TunewheelError, KafkaError, OSError)
"""Errors that name their decision, or that the machine causes. No record is blamed for them."""
CRASHES = 3
"""How often a record of an upstream topic may make its handler fail by any other error."""


@dataclass(frozen=True, slots=True)
class Delivery(Generic[E]):
    """One decoded event and its position on the log."""

    event: Envelope[E]
    position: Position
    headers: Mapping[str, bytes]


Handler = Callable[[Envelope[Any]], Produced | Awaitable[Produced]]
BatchHandler = Callable[[Sequence[Delivery[Any]]], Awaitable[Produced]]


@dataclass(frozen=True, slots=True)
class Consumption:
    """The parts that all subscriptions of one service share."""

    publisher: Publisher
    dead_letters: DeadLetters
    backoff: Backoff
    instruments: Instruments
    newer: NewerReleases = field(default_factory=NewerReleases)
    check: Check = unchecked
    """Returns what counts of an event, and refuses a command that no service signed
    (``identity.signatures``)."""

    def expect(self, spec: TopicSpec) -> None:
        """Create the counters of ``spec`` with 0. Prometheus sees no increase in a series that begins with
        1."""
        self.instruments.consumed.add(0, {"topic": spec.name})
        self.dead_letters.expect(spec.name)

    def decode(self, spec: TopicSpec, record: Record) -> Delivery[Any]:
        """Decode one record. Other systems' events are strict: their topic is a door. Raises InvalidEvent:
        see ``Envelope.from_kafka`` and ``Signatures.check``; of an upstream topic ``Unreadable``."""
        raw = undecoded(record)
        try:
            envelope = Envelope.from_kafka(
                spec.event,
                raw.value,
                raw.headers,
                logged_ms=raw.logged_ms,
                from_anybody=spec.is_from_upstream,
            )
            checked = self.check(spec, envelope, raw)
        except InvalidEvent as error:
            if not spec.is_from_upstream:
                raise
            raise Unreadable(field=error.field, reason=error.reason) from error
        except FORESEEN:
            raise
        except Exception as error:
            if not spec.is_from_upstream:
                raise
            raise Crashed.by(error) from error  # The same bytes give the same error: no second attempt.
        self.newer.left_out(spec, envelope.unknown)
        return Delivery(checked, raw.position, raw.headers)

    async def survive(self, spec: TopicSpec, record: Record, work: Callable[[], Awaitable[T]]) -> T:
        """Await ``work()``, which handles ``record``, with retries.

        An error that nobody foresaw stops the service, and the record is read again at the next start. With
        such a record anyone upstream could stop the service for all projects. So a record of an upstream
        topic is tried ``CRASHES`` times, and then refused. Raises Crashed: ``work`` failed at each attempt.
        """
        attempt = 0
        while True:
            try:
                return await retry(work, self.backoff, what=f"handling {spec.name}")
            except FORESEEN:
                raise
            except Exception as error:
                if not spec.is_from_upstream:
                    raise
                attempt += 1
                log.exception("handler_crashed", attempt=attempt, **asdict(position_of(record)))
                if attempt == CRASHES:
                    raise Crashed.by(error) from error
            await asyncio.sleep(self.backoff.delay(attempt))

    def decode_all(
        self, spec: TopicSpec, records: Sequence[Record]
    ) -> tuple[list[Delivery[Any]], list[Refusal]]:
        """Decode records in order. Return the events, and the refusals of records that cannot be decoded."""
        deliveries: list[Delivery[Any]] = []
        refusals: list[Refusal] = []
        for record in _without_tombstones(spec, records):
            try:
                deliveries.append(self.decode(spec, record))
            except InvalidEvent as error:
                refusals.append(self._refuse(record, error))
            else:
                self.dead_letters.passed(spec.name, deliveries[-1].event.project)
        self.instruments.consumed.add(len(records), {"topic": spec.name})
        return deliveries, refusals

    def _refuse(self, record: Record, error: InvalidEvent, *, project: str | None = None) -> Refusal:
        refusal = undecoded(record), error
        self.dead_letters.refuse(*refusal, project=project)
        return refusal

    async def consume_one(self, spec: TopicSpec, handler: Handler, record: Record) -> None:
        """Handle one record and publish the handler's events. After an ``InvalidEvent`` the record becomes a
        dead letter."""
        self.instruments.consumed.add(1, {"topic": spec.name})
        if spec.is_tombstone(record.value):
            return
        with self.instruments.handling(spec, [record]) as handling:
            project: str | None = None
            try:
                delivery = self.decode(spec, record)
                project = delivery.event.project
                handling.is_of(delivery.event)
                await self.survive(spec, record, lambda: self._handle_and_publish(handler, delivery))
            except InvalidEvent as error:
                handling.outcome = Outcome.REFUSED
                await self.dead_letters.write(undecoded(record), error, project=project)
            else:
                self.dead_letters.passed(spec.name, project)

    async def _handle_and_publish(self, handler: Handler, delivery: Delivery[Any]) -> None:
        await self.publisher.publish_many(await call(handler, delivery.event))

    async def consume_each(self, spec: TopicSpec, handler: Handler, records: Sequence[Record]) -> None:
        """Handle the records of a batch one by one, then publish all their events at once.

        Dead letters are written last. If an error stops the service within the batch, none has been written,
        and the repeated batch writes none twice.
        """
        with self.instruments.handling(spec, records) as handling:
            await self._each(spec, handler, records, handling)

    async def _each(
        self, spec: TopicSpec, handler: Handler, records: Sequence[Record], handling: Handling
    ) -> None:
        made: list[tuple[Record, list[KafkaRecord]]] = []
        refusals: list[Refusal] = []
        for record in _without_tombstones(spec, records):
            project: str | None = None
            try:
                delivery = self.decode(spec, record)
                project = delivery.event.project
                outs = await self.survive(spec, record, lambda d=delivery: self._made_of(handler, d))
            except InvalidEvent as error:
                refusals.append(self._refuse(record, error, project=project))
                continue
            self.dead_letters.passed(spec.name, project)
            made.append((record, outs))
        self.instruments.consumed.add(len(records), {"topic": spec.name})
        refused = await self.publish_all(spec.name, made, self.publisher.send)
        refusals += [self._refuse(record, error) for record, error in refused]
        await self._put(refusals, handling)

    async def _made_of(self, handler: Handler, delivery: Delivery[Any]) -> list[KafkaRecord]:
        made = await call(handler, delivery.event)
        return [traced(self.publisher.sign(envelope), delivery) for envelope in made]

    async def _put(self, refusals: Sequence[Refusal], handling: Handling) -> None:
        if refusals:
            handling.outcome = Outcome.REFUSED
        await self.dead_letters.put(refusals)

    async def publish_all(
        self,
        topic: str,
        made: Sequence[tuple[Record, Sequence[T]]],
        publish: Callable[[Sequence[T]], Awaitable[None]],
    ) -> list[tuple[Record, InvalidEvent]]:
        """Publish what was ``made`` of a batch, at once. If the broker refuses something, publish
        record by record, so that only the record at fault is refused; return the refused ones."""

        async def send(some: Sequence[T]) -> None:
            await retry(lambda: publish(some), self.backoff, what=f"publishing after {topic}")

        refused: list[tuple[Record, InvalidEvent]] = []
        try:
            if everything := [one for _, some in made for one in some]:
                await send(everything)
        except InvalidEvent:
            for record, some in made:
                try:
                    await send(some)
                except InvalidEvent as error:
                    refused.append((record, error))
        return refused

    async def consume_batch(self, spec: TopicSpec, handler: BatchHandler, records: Sequence[Record]) -> None:
        """Pass a decoded batch to ``handler`` as a whole. Dead letters are written last, as in
        ``consume_each``."""
        with self.instruments.handling(spec, records) as handling:
            deliveries, refusals = self.decode_all(spec, records)

            async def handle(some: Sequence[Delivery[Any]]) -> None:
                await self.publisher.publish_many(as_list(await handler(some)))

            try:
                if deliveries:
                    await retry(lambda: handle(deliveries), self.backoff, what=f"handling {spec.name}")
            except FORESEEN:
                raise
            except Exception:
                if not spec.is_from_upstream:
                    raise
                log.exception("batch_crashed", topic=spec.name, records=len(deliveries))
                refusals += await self._one_by_one(spec, handle, deliveries, records)
            await self._put(refusals, handling)

    async def _one_by_one(
        self,
        spec: TopicSpec,
        handle: Callable[[Sequence[Delivery[Any]]], Awaitable[None]],
        deliveries: Sequence[Delivery[Any]],
        records: Sequence[Record],
    ) -> list[Refusal]:
        """Handle each event of a batch alone; return the refusals of those on which the handler fails."""
        by_position = {position_of(record): record for record in records}
        refusals: list[Refusal] = []
        for delivery in deliveries:
            record = by_position[delivery.position]
            try:
                await self.survive(spec, record, lambda d=delivery: handle([d]))
            except InvalidEvent as error:
                refusals.append(self._refuse(record, error, project=delivery.event.project))
        return refusals


def _without_tombstones(spec: TopicSpec, records: Sequence[Record]) -> Iterator[Record]:
    """Leave out the tombstones of a compacted topic. Only views handle tombstones; handlers get events."""
    return (record for record in records if not spec.is_tombstone(record.value))


async def call(handler: Handler, event: Envelope[Any]) -> list[Envelope[Any]]:
    """Call a handler, plain or async, and return its events."""
    result = handler(event)
    return as_list(await result if inspect.isawaitable(result) else result)


def traced(envelope: Envelope[Any], cause: Delivery[Any]) -> KafkaRecord:
    """Encode ``envelope`` with the trace context of its cause."""
    record = envelope.to_kafka()
    for name in CARRIERS:
        if name in cause.headers:
            record.headers[name] = cause.headers[name]
    return record


async def commit(consumer: AIOKafkaConsumer, records: Sequence[Record]) -> bool:
    """Commit past ``records``; see ``commit_past``."""
    last: dict[TopicPartition, int] = {}
    for record in records:
        partition = TopicPartition(record.topic, record.partition)
        last[partition] = max(last.get(partition, 0), record.offset)
    return await commit_past(consumer, last)


async def commit_past(consumer: AIOKafkaConsumer, last: Mapping[TopicPartition, int]) -> bool:
    """Commit past the ``last`` offsets. Return False if a partition moved away meanwhile; its new owner then
    handles the records again.

    Offsets are passed explicitly. After an eager rebalance the consumer's own position is the last commit, so
    committing the position would commit too little.
    """
    held = {tp: offset + 1 for tp, offset in last.items() if tp in consumer.assignment()}
    if not held:
        return False
    try:
        await consumer.commit(held)
        for partition, offset in held.items():
            if await consumer.position(partition) < offset:
                consumer.seek(partition, offset)
    except (CommitFailedError, IllegalStateError) as error:
        log.warning("commit_lost", error=str(error), partitions=[str(tp) for tp in held])
        return False
    return len(held) == len(last)
