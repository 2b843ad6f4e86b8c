"""Stretches of the log that were read before: what a restarted monitor must see again."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.kafka import client_options, stop_consumer
from tunewheel_runtime.partitions import all_partitions_of
from tunewheel_runtime.service import Delivery, Position
from tunewheel_runtime.settings import ServiceSettings

Offsets = dict[int, int]
"""Partition → offset."""
Take = Callable[[Delivery[Any]], Awaitable[None]]


class LogRanges:
    """Reads without joining any group. Every call opens a consumer of its own: they are rare.

    All raise ``TransientError`` where the broker cannot be reached.
    """

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings

    async def committed(self, topic: TopicSpec, group: str) -> Offsets:
        """Return the group's committed offsets; partitions it never committed are absent."""
        async with self._consumer(topic, group=group) as (consumer, partitions):
            found = {tp.partition: await consumer.committed(tp) for tp in partitions}
            return {partition: offset for partition, offset in found.items() if offset is not None}

    async def at(self, topic: TopicSpec, when: datetime | None) -> Offsets:
        """Return each partition's first offset written at or after ``when`` (its first for None)."""
        async with self._consumer(topic) as (consumer, partitions):
            begins = await consumer.beginning_offsets(partitions)
            if when is None:
                return {tp.partition: offset for tp, offset in begins.items()}
            ends = await consumer.end_offsets(partitions)
            milliseconds = int(when.timestamp() * 1000)
            found = await consumer.offsets_for_times(dict.fromkeys(partitions, milliseconds))
            return {tp.partition: found[tp].offset if found[tp] else ends[tp] for tp in partitions}

    async def read(
        self, topic: TopicSpec, starts: Mapping[int, int], ends: Mapping[int, int], take: Take
    ) -> None:
        """Hand what lies in [start, end) of every partition named in both to ``take``: each partition in its
        order, partitions merged by time as far as they were fetched together. A stretch may be the whole
        topic, so no more than a fetch of it is held at once.

        Records that cannot be decoded are left out: they became dead letters when they were first read.
        """
        async with self._consumer(topic) as (consumer, partitions):
            left = await _span(consumer, partitions, starts, ends)
            for tp in left:
                consumer.seek(tp, max(starts[tp.partition], (await consumer.beginning_offsets([tp]))[tp]))
            idle = [tp for tp in partitions if tp not in left]
            if idle:
                consumer.pause(*idle)
            while left:
                fetched: list[Delivery[Any]] = []
                for tp, records in (await consumer.getmany(timeout_ms=200)).items():
                    if tp in left:
                        fetched += [d for r in records if r.offset < left[tp] and (d := decoded(topic, r))]
                for delivery in merged(fetched):
                    await take(delivery)
                for tp in [tp for tp, end in left.items() if await consumer.position(tp) >= end]:
                    del left[tp]
                    consumer.pause(tp)

    @contextlib.asynccontextmanager
    async def _consumer(
        self, topic: TopicSpec, group: str | None = None
    ) -> AsyncIterator[tuple[AIOKafkaConsumer, list[TopicPartition]]]:
        options = client_options(self._settings)
        consumer = AIOKafkaConsumer(
            **options,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=8 << 20,
        )
        try:
            await consumer.start()
            partitions = await all_partitions_of(options, [topic.name])
            consumer.assign(partitions)
            yield consumer, partitions
        except (KafkaError, OSError) as error:
            raise TransientError(f"cannot read {topic.name}: {error!r}") from error
        finally:
            await stop_consumer(consumer)


def merged(deliveries: Sequence[Delivery[Any]]) -> list[Delivery[Any]]:
    """Return deliveries by the events' time as far as each partition's own order allows."""
    partitions: dict[int, list[Delivery[Any]]] = {}
    for delivery in deliveries:
        partitions.setdefault(delivery.position.partition, []).append(delivery)
    return list(heapq.merge(*partitions.values(), key=lambda delivery: delivery.event.time))


async def _span(
    consumer: AIOKafkaConsumer,
    partitions: Sequence[TopicPartition],
    starts: Mapping[int, int],
    ends: Mapping[int, int],
) -> dict[TopicPartition, int]:
    """Return the end of every partition that holds something to read, no end beyond the log's own."""
    begins, latest = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
    found = {tp: min(ends.get(tp.partition, 0), latest[tp]) for tp in partitions if tp.partition in starts}
    return {tp: end for tp, end in found.items() if max(starts[tp.partition], begins[tp]) < end}


def decoded(topic: TopicSpec, record: Any) -> Delivery[Any] | None:
    headers = {name: value or b"" for name, value in record.headers}
    try:
        envelope = Envelope.from_kafka(topic.event, record.value, headers, logged_ms=record.timestamp)
    except InvalidEvent:
        return None
    return Delivery(envelope, Position(record.topic, record.partition, record.offset), headers)
