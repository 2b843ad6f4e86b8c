"""Reading again: in the order of each partition, a fetch at a time."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from tunewheel_contracts import topics
from tunewheel_monitor.log_ranges import LogRanges
from tunewheel_runtime.service import Delivery

from .conftest import Traffic

TOPIC = topics.INFERENCE_COMPLETED
FETCH = 10


class Partitions:
    """A consumer over completions that go round three partitions; a fetch gives ten of one of them."""

    def __init__(self, completions: list[Delivery[Any]]) -> None:
        self.partitions = [TopicPartition(TOPIC.name, n) for n in range(TOPIC.partitions)]
        self.fetches = 0
        self._records: dict[TopicPartition, list[Any]] = {tp: [] for tp in self.partitions}
        for completion in completions:
            sent = completion.event.to_kafka()
            place = completion.position
            headers = tuple(sent.headers.items())
            self._records[TopicPartition(place.topic, place.partition)].append(
                ConsumerRecord(
                    place.topic,
                    place.partition,
                    place.offset,
                    0,
                    0,
                    sent.key,
                    sent.value,
                    None,
                    0,
                    0,
                    headers,
                )
            )
        self._next = dict.fromkeys(self.partitions, 0)
        self._paused: set[TopicPartition] = set()

    async def beginning_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return dict.fromkeys(partitions, 0)

    async def end_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        return {tp: len(self._records[tp]) for tp in partitions}

    async def position(self, partition: TopicPartition) -> int:
        return self._next[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        self._next[partition] = offset

    def pause(self, *partitions: TopicPartition) -> None:
        self._paused.update(partitions)

    async def getmany(self, *, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        self.fetches += 1
        for tp in self.partitions:
            found = self._records[tp][self._next[tp] :][:FETCH]
            if found and tp not in self._paused:
                self._next[tp] += len(found)
                return {tp: found}
        return {}


async def test_no_more_than_a_fetch_is_held(traffic: Traffic) -> None:
    """A stretch may be a month of other projects' traffic."""
    completions = [traffic.completion(f"bell {n}") for n in range(120)]
    consumer, taken = Partitions(completions), list[tuple[int, int, int]]()

    @contextlib.asynccontextmanager
    async def connected(*_: Any) -> AsyncIterator[Any]:
        yield consumer, consumer.partitions

    async def take(delivery: Delivery[Any]) -> None:
        taken.append((delivery.position.partition, delivery.position.offset, consumer.fetches))

    ranges = LogRanges(None)  # type: ignore[arg-type]
    ranges._consumer = connected  # type: ignore[method-assign]
    await ranges.read(TOPIC, {0: 5, 2: 0}, {0: 35, 1: 40, 2: 15}, take)
    assert [(p, o) for p, o, _ in taken] == [(0, o) for o in range(5, 35)] + [(2, o) for o in range(15)]
    held = [fetch for _, _, fetch in taken]
    assert max(held.count(fetch) for fetch in held) == FETCH
