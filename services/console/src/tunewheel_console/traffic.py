"""Topics that carry traffic: only their latest events are read, and their dead letters only counted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import BY_NAME, TOPICS, TopicSpec
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.settings import ServiceSettings

log = structlog.get_logger(__name__)
COUNT_SECONDS = 3.0


class Traffic:
    """Follows the tails of topics and counts dead letters, in the background, for as long as it runs."""

    def __init__(
        self,
        settings: ServiceSettings,
        topics: Sequence[TopicSpec],
        apply: Callable[[Envelope[Any]], None],
        count: Callable[[dict[str, int]], None],
        *,
        latest: int,
    ) -> None:
        self._settings = settings
        self._partitions = [TopicPartition(t.name, n) for t in topics for n in range(t.partitions)]
        self._letters = {TopicPartition(t.dead_letter, 0): t.name for t in TOPICS if t.dead_letter_exists}
        self._apply = apply
        self._count = count
        self._latest = latest
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for work in (self._follow, self._count_letters):
            self._tasks.append(asyncio.create_task(self._patiently(work), name=work.__name__))

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()

    async def _patiently(self, work: Callable[[AIOKafkaConsumer], Any]) -> None:
        while True:
            consumer = AIOKafkaConsumer(
                **client_options(self._settings), group_id=None, enable_auto_commit=False
            )
            try:
                await consumer.start()
                await work(consumer)
            except (KafkaError, OSError) as error:
                log.warning("traffic_unreadable", work=work.__name__, error=str(error))
                await asyncio.sleep(COUNT_SECONDS)
            finally:
                with contextlib.suppress(KafkaError, OSError):
                    await consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(self._partitions)
        begins = await consumer.beginning_offsets(self._partitions)
        for partition, end in (await consumer.end_offsets(self._partitions)).items():
            consumer.seek(partition, max(begins[partition], end - self._latest))
        while True:
            for partition, records in (await consumer.getmany(timeout_ms=1_000)).items():
                spec = BY_NAME[partition.topic]
                for record in records:
                    with contextlib.suppress(InvalidEvent):  # its dead letter is counted
                        self._apply(Envelope.from_kafka(spec.event, record.value, record.headers))

    async def _count_letters(self, consumer: AIOKafkaConsumer) -> None:
        consumer.assign(list(self._letters))
        while True:
            ends = await consumer.end_offsets(list(self._letters))
            begins = await consumer.beginning_offsets(list(self._letters))
            counts = {name: ends[tp] - begins[tp] for tp, name in self._letters.items()}
            self._count({name: count for name, count in counts.items() if count})
            await asyncio.sleep(COUNT_SECONDS)
