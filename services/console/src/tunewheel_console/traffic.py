"""Reads the latest events of topics that carry traffic. Counts dead letters, and undoes reviews and commands
that became dead letters."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import BY_NAME, REVIEW_SUBMITTED, TOPICS, TRAIN_CONTROL, TopicSpec
from tunewheel_runtime.deadletter import Position, refused
from tunewheel_runtime.kafka import client_options, make_consumer, stop_consumer
from tunewheel_runtime.partitions import NOTICE_MS, added_partitions, all_partitions_of, read_also
from tunewheel_runtime.settings import ServiceSettings

log = structlog.get_logger(__name__)
COUNT_SECONDS = 3.0
DECISIONS = (REVIEW_SUBMITTED.name, TRAIN_CONTROL.name)
"""Topics whose events are shown before a service may refuse them."""


class Traffic:
    """Follows the ends of topics and counts dead letters, in the background."""

    def __init__(
        self,
        settings: ServiceSettings,
        topics: Sequence[TopicSpec],
        apply: Callable[[Envelope[Any]], None],
        count: Callable[[dict[str, int]], None],
        *,
        refuse: Callable[[Envelope[Any]], None],
        latest: int,
    ) -> None:
        self._options = client_options(settings)
        self._names = [topic.name for topic in topics]
        self._letters = {topic.dead_letter: topic.name for topic in TOPICS if topic.dead_letter_exists}
        self._apply = apply
        self._count = count
        self._refuse = refuse
        self._latest = latest
        self._refused: defaultdict[str, set[tuple[str, Position]]] = defaultdict(set)
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
            consumer = make_consumer(self._options, metadata_max_age_ms=NOTICE_MS)
            try:
                await consumer.start()
                await work(consumer)
            except (KafkaError, OSError, TransientError) as error:
                log.warning("traffic_unreadable", work=work.__name__, error=str(error))
                await asyncio.sleep(COUNT_SECONDS)
            finally:
                with contextlib.suppress(KafkaError, OSError):
                    await stop_consumer(consumer)

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        partitions = await all_partitions_of(self._options, self._names)
        consumer.assign(partitions)
        begins = await consumer.beginning_offsets(partitions)
        for partition, end in (await consumer.end_offsets(partitions)).items():
            consumer.seek(partition, max(begins[partition], end - self._latest))
        while True:
            if added := added_partitions(consumer, self._names):
                await read_also(consumer, added)
            for partition, records in (await consumer.getmany(timeout_ms=1_000)).items():
                spec = BY_NAME[partition.topic]
                for record in records:
                    with contextlib.suppress(InvalidEvent):  # such an event is counted as a dead letter
                        self._apply(
                            Envelope.from_kafka(
                                spec.event, record.value, record.headers, logged_ms=record.timestamp
                            )
                        )

    async def _count_letters(self, consumer: AIOKafkaConsumer) -> None:
        names = list(self._letters)
        partitions = await all_partitions_of(self._options, names)
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while True:
            if added := added_partitions(consumer, names):
                await read_also(consumer, added)
            fetched = await consumer.getmany(timeout_ms=1_000)
            for partition, records in fetched.items():
                topic = self._letters[partition.topic]
                self._refused[topic].update(map(refused, records))
                if topic in DECISIONS:
                    self._take_back(BY_NAME[topic], records)
            if fetched:
                self._count({name: len(found) for name, found in self._refused.items()})

    def _take_back(self, spec: TopicSpec, letters: Sequence[Any]) -> None:
        for letter in letters:
            with contextlib.suppress(InvalidEvent):  # an event that cannot be decoded was never shown
                self._refuse(
                    Envelope.from_kafka(spec.event, letter.value, letter.headers, logged_ms=letter.timestamp)
                )
