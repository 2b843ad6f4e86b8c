"""Registers handlers as FastStream subscribers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError
from faststream import AckPolicy
from faststream.message import StreamMessage
from opentelemetry.metrics import Meter
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.topics import TopicSpec

from tunewheel_runtime.broker import make_broker
from tunewheel_runtime.broker_watch import Lag
from tunewheel_runtime.concurrent_jobs import ConcurrentJobs
from tunewheel_runtime.consuming import Consumption, commit
from tunewheel_runtime.jobs import LONGEST_JOB_MS, JobHandler, LeaseListener, consume_job
from tunewheel_runtime.kafka import COMMITTED, client_options, foreign_options, stop_in_full
from tunewheel_runtime.log import Cursor, LogUnreadable
from tunewheel_runtime.metrics import gauge
from tunewheel_runtime.partitions import Backlog, Settled, backlog_of, handles, lag_of, settled_of
from tunewheel_runtime.settings import ServiceSettings

log = structlog.get_logger(__name__)
GAP_SECONDS = 10.0
"""Longest search for a record between a group's offset and a partition's end."""
GAPS_SECONDS = 5.0
"""Most time for passing gaps at one measurement of the lag; the next measurement goes on."""
H = TypeVar("H", bound=Callable[..., Any])
LONGEST_HANDLING_MS = 3_600_000
"""``max_poll_interval_ms``: longer than a handler is retried. A member that does not poll for this long loses
its partitions; during an outage another member would only meet the same outage."""


class Subscriptions:
    """The subscribers of one service. Errors of all handlers are handled here.

    Offsets are always committed manually. FastStream's default (``ACK_FIRST``) is at-most-once, and
    ``NACK_ON_ERROR`` reads an invalid message again for ever.
    """

    def __init__(
        self,
        name: str,
        settings: ServiceSettings,
        consumption: Consumption,
        *,
        failed: Callable[[BaseException], None],
    ) -> None:
        """``name``: the service's name. ``failed`` is called with an error that stops the service."""
        self._name = name
        self._settings = settings
        self._consumption = consumption
        self._failed = failed
        self.groups: list[tuple[str, str]] = []
        """Consumer group and topic of every subscription."""
        self.foreign: dict[tuple[str, str], AIOKafkaConsumer] = {}
        """The consumers of other systems' topics, by group and topic. Their readers put them here."""
        self._subscribers: dict[str, Any] = {}
        self._listeners: dict[str, LeaseListener] = {}
        """The lease listeners of jobs, by topic."""
        self._concurrent = ConcurrentJobs(self._guard)
        self._lag: Lag = {}
        self._caught_up: dict[tuple[str, str], dict[TopicPartition, int]] = {}
        self.broker = make_broker(name, settings, failed)

    async def start(self) -> None:
        try:
            await self.broker.start()
        except BaseException:
            await stop_in_full(self.broker.stop)
            raise

    async def stop(self) -> None:
        for listener in self._listeners.values():
            listener.close("the service is stopping")
        await self._concurrent.ended()
        await stop_in_full(self.broker.stop)

    def single(self, topic: TopicSpec) -> Callable[[H], H]:
        return self._committing(topic, self._consumption.consume_one)

    def each(self, topic: TopicSpec, max_records: int) -> Callable[[H], H]:
        return self._committing(topic, self._consumption.consume_each, max_records)

    def batch(self, topic: TopicSpec, max_records: int) -> Callable[[H], H]:
        return self._committing(topic, self._consumption.consume_batch, max_records)

    def _committing(
        self, topic: TopicSpec, consume: Callable[..., Awaitable[None]], max_records: int | None = None
    ) -> Callable[[H], H]:
        async def consume_and_commit(handler: Any, message: StreamMessage[Any]) -> None:
            raw = message.raw_message
            await consume(topic, handler, raw)
            await commit(_consumer(message), [raw] if max_records is None else raw)

        return self._register(topic, consume_and_commit, max_records=max_records)

    def job(self, topic: TopicSpec, *, in_order: bool = False) -> Callable[[H], H]:
        listener = self._listeners[topic.name] = LeaseListener()
        jobs = self._concurrent

        async def consume(handler: JobHandler, message: StreamMessage[Any]) -> None:
            record, consumer = message.raw_message, _consumer(message)
            jobs.start(
                record,
                consumer,
                lambda: consume_job(
                    self._consumption, topic, handler, listener, record, consumer, jobs.settle,
                    jobs.turn if in_order else None,
                ),
            )  # fmt: skip

        return self._register(topic, consume, listener=listener)

    def handles(self, topic: TopicSpec, key: str) -> bool:
        """Return whether events on ``topic`` with this record key are assigned to this process."""
        consumer = self._consumer_of(topic)
        return consumer is not None and handles(consumer, topic.name, key)

    async def settled(self, topic: TopicSpec) -> Settled:
        """Return the partitions of ``topic`` that are assigned to this process and handled to their ends.
        Raises TransientError: the broker does not answer."""
        consumer = self._consumer_of(topic)
        if consumer is None:
            return Settled(0, frozenset())
        try:
            return await settled_of(consumer, topic.name)
        except KafkaError as error:
            raise TransientError(f"cannot tell how far {topic.name} was handled: {error!r}") from error

    async def backlog(self, topic: TopicSpec) -> Backlog:
        """Return how far the service's group has handled all partitions of ``topic``. Raises TransientError:
        the broker does not answer, or this process is not subscribed yet."""
        consumer = self._consumer_of(topic)
        numbers = consumer.partitions_for_topic(topic.name) if consumer is not None else None
        if consumer is None or not numbers:
            raise TransientError(f"cannot tell how far {topic.name} was handled: not subscribed yet")
        try:
            return await backlog_of(consumer, [TopicPartition(topic.name, n) for n in sorted(numbers)])
        except KafkaError as error:
            raise TransientError(f"cannot tell how far {topic.name} was handled: {error!r}") from error

    async def lag(self) -> Lag:
        """Return the number of unprocessed records in the partitions that are assigned to this process. A lag
        that stays the same may be a gap that transactions left; then the group's offset passes it. Raises
        KafkaError, TimeoutError: the broker does not answer."""
        subscribed = {(group, topic): self._subscribers[topic].consumer for group, topic in self.groups}
        members = {of: one for of, one in (subscribed | self.foreign).items() if one is not None}
        before, self._lag = self._lag, await lag_of(members, self._caught_up)
        # A job holds its record for hours, and only Tunewheel itself writes the topics of jobs.
        still = [of for of, waiting in self._lag.items() if waiting and before.get(of) == waiting]
        stuck = [of for of in still if of[1] not in self._listeners]
        try:
            async with asyncio.timeout(GAPS_SECONDS):
                for group, topic, number in stuck:
                    partition = TopicPartition(topic, int(number))
                    options_of = foreign_options if (group, topic) in self.foreign else client_options
                    await pass_gap(members[group, topic], partition, options_of(self._settings))
        except (KafkaError, LogUnreadable, TimeoutError) as error:  # The measured lag counts all the same.
            log.warning("gaps_not_passed", partitions=len(stuck), error=repr(error))
        return self._lag

    @property
    def running_jobs(self) -> dict[str, float]:
        """Number of running and waiting jobs of this process, by topic."""
        return {topic: listener.running for topic, listener in self._listeners.items()}

    def measure(self, meter: Meter) -> None:
        """Report the running jobs as a metric."""
        gauge(
            meter,
            "tunewheel.jobs.running",
            "Jobs that are under way, or wait for their turn, in this process",
            lambda: self.running_jobs,
            ("topic",),
        )

    def _consumer_of(self, topic: TopicSpec) -> Any:
        subscriber = self._subscribers.get(topic.name)
        return subscriber.consumer if subscriber is not None else None

    def _register(
        self,
        topic: TopicSpec,
        consume: Callable[[Any, StreamMessage[Any]], Awaitable[None]],
        *,
        max_records: int | None = None,
        listener: LeaseListener | None = None,
    ) -> Callable[[H], H]:
        settings = self._settings
        group = f"{self._name}.{topic.name.replace('.', '-')}"
        self.groups.append((group, topic.name))
        self._consumption.expect(topic)
        options: dict[str, Any] = {
            "group_id": group,
            "auto_offset_reset": "earliest",
            **COMMITTED,
            "ack_policy": AckPolicy.MANUAL,
            "group_instance_id": settings.instance,
            "session_timeout_ms": settings.session_timeout_ms,
            "heartbeat_interval_ms": settings.session_timeout_ms // 3,
            "max_poll_interval_ms": LONGEST_JOB_MS if listener else LONGEST_HANDLING_MS,
            "max_partition_fetch_bytes": 8 << 20,
            # The assignor keeps its assignment in its class; groups with the same class would mix them up.
            "partition_assignment_strategy": (type("Sticky", (StickyPartitionAssignor,), {}),),
            "parser": _parse_any_headers,
            "decoder": _leave_undecoded,
        }
        if listener is not None:
            options["listener"] = listener
        if max_records is not None:
            options |= {"batch": True, "max_records": max_records}

        def decorate(handler: H) -> H:
            async def subscriber(message: StreamMessage[Any]) -> None:
                await self._guard(consume(handler, message))

            subscriber.__name__ = getattr(handler, "__name__", "subscriber")
            subscriber.__doc__ = handler.__doc__
            registered = self._subscribers[topic.name] = self.broker.subscriber(topic.name, **options)
            registered(subscriber)
            return handler

        return decorate

    async def _guard(self, work: Awaitable[None]) -> None:
        """Await a handler; stop the service after an error. FastStream would only log it and skip the
        message."""
        try:
            await work
        except Exception as error:
            self._failed(error)
            # CancelledError ends the consume loop. FastStream would log any other exception and go on.
            raise asyncio.CancelledError from error


async def _parse_any_headers(raw: Any, parse: Callable[[Any], Awaitable[StreamMessage[Any]]]) -> Any:
    """Parse a record whose headers may be null or not UTF-8. It must become a dead letter and not just a log
    line."""
    try:
        return await parse(raw)
    except (UnicodeDecodeError, AttributeError):
        records = raw if isinstance(raw, tuple) else (raw,)
        bare = tuple(dataclasses.replace(record, headers=()) for record in records)
        message = await parse(bare if isinstance(raw, tuple) else bare[0])
        message.raw_message = raw
        return message


async def pass_gap(consumer: AIOKafkaConsumer, partition: TopicPartition, options: Mapping[str, Any]) -> None:
    """Commit up to the end of ``partition`` if no record lies before it. Aborted records and the markers of
    transactions have offsets too, but a group commits past records only, so it would wait for them for ever.
    Raises KafkaError, LogUnreadable, TimeoutError: the broker does not answer."""
    async with asyncio.timeout(GAP_SECONDS), Cursor(options, [partition.topic]) as cursor:
        end = cursor.spans[partition].end
        cursor.start_from({partition: await consumer.committed(partition) or 0})
        async for _ in cursor.upto({partition: end}, most=1):
            return
        if partition in consumer.assignment():
            await consumer.commit({partition: end})


async def _leave_undecoded(message: StreamMessage[Any]) -> StreamMessage[Any]:
    """Pass the message on undecoded. The service decodes it, so that a failure can become a dead letter."""
    return message


def _consumer(message: StreamMessage[Any]) -> Any:
    return message.consumer  # type: ignore[attr-defined]
