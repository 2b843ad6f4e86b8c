"""Finds one record of a topic by its key, reading from a given time on. For queries that are too rare to
justify following the topic."""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TopicSpec

from tunewheel_runtime.kafka import client_options, make_consumer, stop_consumer
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.partitions import all_partitions_of

SLACK = timedelta(seconds=1)
"""Reading begins this much earlier than asked for, so that a clock that was set back a little hides no
record."""
MOST_RECORDS = 20_000
"""Most records that are read for one query. A record further behind the given time is not found."""
PATIENCE_SECONDS = 2.0
"""If the given time is recent, the record may not be on the log yet; it is waited for this long."""
RECENT = timedelta(minutes=1)
LONGEST_SECONDS = 10.0
"""Longest time for one query, including the wait for earlier queries. aiokafka does not report an unavailable
broker."""


class RecordSearch:
    """Reads all partitions of ``topic``, without a consumer group, from the given time on. The connection is
    opened at the first query and kept. Queries run one after the other."""

    def __init__(self, settings: KafkaSettings, topic: TopicSpec) -> None:
        self._settings = settings
        self._topic = topic
        self._one_at_a_time = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None

    async def find(self, key: str, since: datetime) -> Envelope[Any] | None:
        """Return the first event with this record key that was logged at ``since`` or later. None: there is
        none, it cannot be decoded, or it did not arrive in time.

        Raises:
            TransientError: the broker is unavailable or too slow, or the topic does not exist.
        """
        deadline = asyncio.get_running_loop().time() + LONGEST_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                await self._one_at_a_time.acquire()
        except TimeoutError as error:
            raise TransientError(f"cannot read {self._topic.name} yet: earlier searches still run") from error
        try:
            async with asyncio.timeout_at(deadline):
                return await self._find(key.encode(), since)
        except (KafkaError, OSError) as error:  # OSError includes TimeoutError.
            await self.close()
            raise TransientError(f"cannot read {self._topic.name}: {error!r}") from error
        finally:
            self._one_at_a_time.release()

    async def close(self) -> None:
        """Close the connection. The next query opens another."""
        if self._consumer is not None:
            consumer, self._consumer = self._consumer, None
            await stop_consumer(consumer)

    async def _find(self, key: bytes, since: datetime) -> Envelope[Any] | None:
        consumer, partitions = await self._connected()
        await self._seek(consumer, partitions, since - SLACK)
        patience = PATIENCE_SECONDS if datetime.now(UTC) - since < RECENT else 0.0
        found = await self._scan(consumer, partitions, key, patience)
        consumer.pause(*partitions)
        return found

    async def _connected(self) -> tuple[AIOKafkaConsumer, list[TopicPartition]]:
        options = client_options(self._settings)
        if self._consumer is None:
            consumer = make_consumer(options)
            try:
                await consumer.start()
                consumer.assign(await all_partitions_of(options, [self._topic.name]))
            except BaseException:
                await stop_consumer(consumer)
                raise
            self._consumer = consumer
        return self._consumer, list(self._consumer.assignment())

    async def _seek(
        self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition], since: datetime
    ) -> None:
        milliseconds = int(since.timestamp() * 1000)
        begins = await consumer.offsets_for_times(dict.fromkeys(partitions, milliseconds))
        ends = await consumer.end_offsets(partitions)
        for partition in partitions:
            begin = begins[partition]
            consumer.seek(partition, begin.offset if begin is not None else ends[partition])
        consumer.resume(*partitions)

    async def _scan(
        self, consumer: AIOKafkaConsumer, partitions: list[TopicPartition], key: bytes, patience: float
    ) -> Envelope[Any] | None:
        read = 0
        deadline = time.monotonic() + patience
        ends = await consumer.end_offsets(partitions)
        while read < MOST_RECORDS:
            for records in (await consumer.getmany(timeout_ms=100)).values():
                read += len(records)
                for record in records:
                    if record.key == key:
                        return self._decoded(record)
            reached = [await consumer.position(tp) >= end for tp, end in ends.items()]
            if all(reached) and time.monotonic() > deadline:
                return None
        return None

    def _decoded(self, record: Any) -> Envelope[Any] | None:
        try:
            return Envelope.from_kafka(
                self._topic.event, record.value, record.headers, logged_ms=record.timestamp
            )
        except InvalidEvent:
            return None
