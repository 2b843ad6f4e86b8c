"""Materialised views and log readers: they read topics to the end before a service handles its first
event."""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.topics import BY_NAME, TopicSpec

from tunewheel_runtime.deadletter import Position, Warn
from tunewheel_runtime.kafka import client_options, make_consumer, stop_consumer
from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.newer_releases import NewerReleases
from tunewheel_runtime.partitions import (
    NOTICE_MS,
    LogEnds,
    added_partitions,
    all_partitions_of,
    read_also,
)

log = structlog.get_logger(__name__)
E = TypeVar("E", bound=Event)
Apply = Callable[[Envelope[Any]], Awaitable[None] | None]
ApplyAt = Callable[[Envelope[Any], Position], Awaitable[None] | None]
Forget = Callable[[TopicSpec, str], None]
"""Called with the topic and the key of a tombstone."""
Failed = Callable[[BaseException], None]
Begins = Callable[[], Awaitable[Mapping[str, Mapping[str, int] | None]]]
"""Returns by topic the offset of each partition from which to read; None: from the topic's end. Topics and
partitions that are not named are read from the beginning."""


class LogReader:
    """Reads whole topics from the beginning, without a consumer group, and goes on following them.

    All partitions of the broker are read, including those that are added later. Within a partition events
    come in log order. The initial read merges topics by log timestamp; at equal timestamps the order of
    ``topics`` counts.

    An invalid record is skipped and reported to ``newer``: a bad record must not stop a view for ever. A
    tombstone (null, on a compacted topic) is passed to ``forget``. Any other error ends the reading and is
    passed to ``failed``, because the state in memory would become outdated.

    With ``begins`` the reading starts at the offsets that it returns. The initial read then applies events as
    they arrive, in no order between partitions, so that a long log need not fit into memory. This is only for
    folds whose result does not depend on the order.

    ``warn`` is called for a topic with unlimited retention whose first events are missing; the state in
    memory then lacks them.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[TopicSpec],
        apply: ApplyAt,
        *,
        failed: Failed,
        forget: Forget = lambda _topic, _key: None,
        warn: Warn = lambda _name, _text: None,
        begins: Begins | None = None,
        newer: NewerReleases | None = None,
    ) -> None:
        self._begins = begins
        self._newer = newer or NewerReleases()
        self._options = client_options(settings)
        self._topics = tuple(topics)
        self._names = [topic.name for topic in topics]
        self._apply = apply
        self._failed = failed
        self._forget = forget
        self._warn = warn
        self._consumer: AIOKafkaConsumer | None = None
        self._ends = LogEnds(self._options, self._names)
        self._follower: asyncio.Task[None] | None = None
        self._advanced = asyncio.Condition()
        self._applied: dict[TopicPartition, int] = {}
        self._announced: set[TopicPartition] = set()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the topics."""
        return tuple(self._names)

    async def start(self) -> None:
        """Read up to the present end, then go on following in the background.

        Raises:
            TransientError: a topic does not exist.
            KafkaError: the broker does not answer.
        """
        self._consumer = consumer = make_consumer(
            self._options,
            max_partition_fetch_bytes=8 << 20,
            metadata_max_age_ms=NOTICE_MS,
        )
        await consumer.start()
        partitions = await all_partitions_of(self._options, self._names)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        self._applied = {tp: await consumer.position(tp) for tp in partitions}
        self._warn_if_truncated(self._applied)
        if self._begins is not None:
            await self._skip_to(await self._begins(), consumer)
        await self._read_to(await consumer.end_offsets(partitions), consumer)
        self._follower = asyncio.create_task(self._follow(consumer), name="log-reader")
        self._follower.add_done_callback(self._follower_ended)

    async def stop(self) -> None:
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)
            self._follower = None
        await self._ends.stop()
        if self._consumer is not None:
            await stop_consumer(self._consumer)
            self._consumer = None

    async def refresh(self, *, timeout_seconds: float = 30.0) -> None:
        """Wait until everything that is on the log now has been applied.

        Raises:
            TransientError: the broker did not deliver in time.
        """
        if self._consumer is None:
            raise TransientError("the broker is not connected yet; try again shortly")
        try:
            async with asyncio.timeout(timeout_seconds):
                ends = await self._ends.ask()
                self._announced |= ends.keys()
                async with self._advanced:
                    await self._advanced.wait_for(lambda: self._has_reached(ends))
        except (KafkaError, TimeoutError) as error:
            raise TransientError(
                f"cannot read {[t.name for t in self._topics]} to the end: {error!r}"
            ) from error

    def upto(self, topic: TopicSpec) -> dict[str, int]:
        """Return, by partition, the offset up to which every event of ``topic`` has been applied."""
        applied = {tp.partition: end for tp, end in self._applied.items() if tp.topic == topic.name}
        return {str(partition): applied[partition] for partition in sorted(applied)}

    async def _skip_to(
        self, begins: Mapping[str, Mapping[str, int] | None], consumer: AIOKafkaConsumer
    ) -> None:
        ends = await consumer.end_offsets(list(self._applied))
        for partition, first in self._applied.items():
            of_topic = begins.get(partition.topic, {})
            wanted = ends[partition] if of_topic is None else of_topic.get(str(partition.partition), 0)
            if first < wanted <= ends[partition]:  # An offset beyond the end belongs to another log.
                consumer.seek(partition, wanted)
                self._applied[partition] = wanted

    def _has_reached(self, ends: dict[TopicPartition, int]) -> bool:
        return all(self._applied.get(tp, -1) >= end for tp, end in ends.items())

    async def _read_to(self, ends: dict[TopicPartition, int], consumer: AIOKafkaConsumer) -> None:
        pending: list[ConsumerRecord[bytes, bytes]] = []
        while not self._has_reached(ends):
            for partition, records in (await consumer.getmany(timeout_ms=200)).items():
                if self._begins is None:
                    pending.extend(records)
                else:
                    for record in records:
                        await self._decode_and_apply(record)
                self._applied[partition] = records[-1].offset + 1
            for (
                partition
            ) in ends:  # Compaction and transactions leave gaps; only the position is beyond them.
                self._applied[partition] = max(self._applied[partition], await consumer.position(partition))
        rank = {topic.name: n for n, topic in enumerate(self._topics)}
        for record in sorted(pending, key=lambda r: (r.timestamp, rank[r.topic], r.partition, r.offset)):
            await self._decode_and_apply(record)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                await self._take_up_added(consumer)
                batches = await consumer.getmany(timeout_ms=1_000)
            except KafkaError as error:
                if refusal := not_allowed(error):
                    raise refusal from error
                log.warning("view_read_failed", error=str(error))
                await asyncio.sleep(1.0)
                continue
            for partition, records in batches.items():
                for record in records:
                    await self._decode_and_apply(record)
                await self._advance({partition: records[-1].offset + 1})
            # Aborted records and markers of transactions are never delivered; only the position passes them.
            held = consumer.assignment() & self._applied.keys()
            await self._advance({partition: await consumer.position(partition) for partition in held})

    async def _advance(self, reached: Mapping[TopicPartition, int]) -> None:
        ahead = {tp: offset for tp, offset in reached.items() if offset > self._applied.get(tp, -1)}
        if ahead:
            async with self._advanced:
                self._applied |= ahead
                self._advanced.notify_all()

    async def _take_up_added(self, consumer: AIOKafkaConsumer) -> None:
        added = (self._announced | added_partitions(consumer, self._names)) - self._applied.keys()
        if added:
            log.info("view_reads_added_partitions", partitions=sorted(str(tp) for tp in added))
            begins = await read_also(consumer, added)
            async with self._advanced:
                self._applied |= begins
                self._advanced.notify_all()

    def _warn_if_truncated(self, begins: Mapping[TopicPartition, int]) -> None:
        for partition, begin in begins.items():
            if begin > 0 and BY_NAME[partition.topic].is_kept_for_ever:
                text = (
                    f"partition {partition.partition} of {partition.topic} begins at offset {begin}: earlier "
                    "events were deleted from the log, so this service does not know them. The topic should "
                    "be kept for ever: compare its settings with `tunewheel topics`"
                )
                self._warn(f"truncated {partition.topic}[{partition.partition}]", text)

    def _follower_ended(self, follower: asyncio.Task[None]) -> None:
        error = None if follower.cancelled() else follower.exception()
        if error is not None:
            self._failed(error)

    async def _decode_and_apply(self, record: ConsumerRecord[bytes, bytes]) -> None:
        topic = BY_NAME[record.topic]
        position = Position(record.topic, record.partition, record.offset)
        if topic.is_tombstone(record.value):
            self._newer.has_read(topic, record.key)
            self._forget(topic, (record.key or b"").decode("utf-8", "replace"))
            return
        try:
            envelope = Envelope.from_kafka(
                topic.event, record.value, record.headers, logged_ms=record.timestamp
            )
        except InvalidEvent as error:
            self._newer.skipped(topic, record.key, position, error)
            return
        self._newer.left_out(topic, envelope.unknown)
        self._newer.has_read(topic, record.key)
        applying = self._apply(envelope, position)
        if inspect.isawaitable(applying):
            await applying


class View(Generic[E]):
    """The latest event per record key of one topic. A tombstone removes its key."""

    def __init__(
        self,
        settings: KafkaSettings,
        topic: TopicSpec,
        *,
        failed: Failed,
        newer: NewerReleases | None = None,
    ) -> None:
        self._latest: dict[str, Envelope[E]] = {}
        self._observers: list[Callable[[Envelope[E]], None]] = []
        self._removal_observers: list[Callable[[str], None]] = []
        self.reader = LogReader(
            settings, (topic,), self._remember, failed=failed, forget=self._forget, newer=newer
        )

    def get(self, key: str) -> Envelope[E] | None:
        return self._latest.get(key)

    def values(self) -> list[Envelope[E]]:
        return list(self._latest.values())

    def on_change(self, observer: Callable[[Envelope[E]], None]) -> None:
        """Call ``observer`` with every event, including those of the initial read."""
        self._observers.append(observer)

    def on_removal(self, observer: Callable[[str], None]) -> None:
        """Call ``observer`` with every key that a tombstone removes."""
        self._removal_observers.append(observer)

    async def refresh(self) -> None:
        """Read up to the present end; see ``LogReader.refresh``."""
        await self.reader.refresh()

    async def fresh(self, key: str) -> Envelope[E] | None:
        """Return the latest event for ``key``. If the key is unknown, read up to the present end first."""
        if key not in self._latest:
            await self.refresh()
        return self._latest.get(key)

    def _remember(self, envelope: Envelope[Any], _: Position) -> None:
        self._latest[envelope.data.record_key] = envelope
        for observer in self._observers:
            observer(envelope)

    def _forget(self, _: TopicSpec, key: str) -> None:
        self._latest.pop(key, None)
        for observer in self._removal_observers:
            observer(key)
