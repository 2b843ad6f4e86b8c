"""One record of a topic by its key, from a moment on: for questions too rare to follow the topic for."""

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

from tunewheel_runtime.kafka import client_options, stop_consumer
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.partitions import all_partitions_of

SLACK = timedelta(seconds=1)
"""Clocks that are set back by less than this hide no record."""
MOST_RECORDS = 20_000
"""Read for one question; a record further from its moment is not found."""
PATIENCE_SECONDS = 2.0
"""How long a record is waited for that is not on the log yet, from a moment that is not long past."""
RECENT = timedelta(minutes=1)
LONGEST_SECONDS = 10.0
"""For one question, the wait for those before it included: aiokafka says nothing of a broker that is away."""


class RecordSearch:
    """Reads all partitions of ``topic``, in no group, from the first record of the moment on. The connection
    is made at the first question and kept; questions are answered one after another."""

    def __init__(self, settings: KafkaSettings, topic: TopicSpec) -> None:
        self._settings = settings
        self._topic = topic
        self._one_at_a_time = asyncio.Lock()
        self._consumer: AIOKafkaConsumer | None = None

    async def find(self, key: str, since: datetime) -> Envelope[Any] | None:
        """Return the first event with this record key that was logged from ``since`` on; None where there is
        none, it cannot be decoded, or it comes too late to be waited for.

        Raises:
            TransientError: the broker is away, answers too late, or the topic does not exist.
        """
        deadline = asyncio.get_running_loop().time() + LONGEST_SECONDS
        try:
            async with asyncio.timeout_at(deadline):
                await self._one_at_a_time.acquire()
        except TimeoutError as error:
            raise TransientError(f"cannot read {self._topic.name} yet: others are read for") from error
        try:
            async with asyncio.timeout_at(deadline):
                return await self._find(key.encode(), since)
        except (KafkaError, OSError) as error:  # a TimeoutError is an OSError
            await self.close()
            raise TransientError(f"cannot read {self._topic.name}: {error!r}") from error
        finally:
            self._one_at_a_time.release()

    async def close(self) -> None:
        """Let go of the connection; the next question makes another."""
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
            consumer = AIOKafkaConsumer(
                **options, group_id=None, enable_auto_commit=False, auto_offset_reset="earliest"
            )
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
