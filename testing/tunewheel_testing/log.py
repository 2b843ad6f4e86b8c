"""The log in memory, where a unit test does not need Kafka: what services publish, and what they find."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from aiokafka import TopicPartition
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope, Event, new_event
from tunewheel_contracts.topics import BY_NAME, TopicSpec
from tunewheel_runtime.jobs import Lease


def wrap(data: Event) -> Envelope[Any]:
    return new_event(data, source="/test")


def lease(topic: str = "train.completed", offset: int = 0) -> Lease:
    """Return a lease that nobody takes away."""
    return Lease(TopicPartition(topic, 0), offset)


class MemoryLog:
    """Takes events as a producer does. ``away`` refuses them as a broker that cannot be reached does, and
    ``refusals`` counts the publishes that are refused next."""

    def __init__(self) -> None:
        self.events: list[Envelope[Any]] = []
        self.taken_back: list[tuple[str, str]] = []
        """Topic and key of each tombstone."""
        self.batches = 0
        self.away = False
        self.refusals = 0
        self.warnings: dict[str, str | None] = {}
        self.failures: list[BaseException] = []

    def new(self, data: Any, *, cause: Any = None, correlation_id: str | None = None) -> Envelope[Any]:
        return new_event(data, source="/test", cause=cause, correlation_id=correlation_id)

    async def publish(self, *envelopes: Envelope[Any]) -> None:
        await self.publish_many(envelopes)

    async def publish_many(self, envelopes: Iterable[Envelope[Any]]) -> None:
        await asyncio.sleep(0)
        found = list(envelopes)
        if self.away or (found and self.refusals):
            self.refusals -= not self.away
            raise TransientError("the broker is away")
        self.batches += 1
        self.events += found

    async def take_back(self, topic: TopicSpec, key: str) -> None:
        if self.away:
            raise TransientError("the broker is away")
        self.taken_back.append((topic.name, key))

    async def send(self, records: Iterable[Any]) -> None:
        """Take encoded events."""
        await self.publish_many(
            Envelope.from_kafka(BY_NAME[record.topic].event, record.value, record.headers)
            for record in records
        )

    def warn(self, name: str, text: str | None) -> None:
        self.warnings[name] = text

    def of(self, event_type: str) -> list[Any]:
        """Return the data of the events of a type, each id once."""
        return list({event.id: event.data for event in self.events if event.data.type == event_type}.values())


class Table:
    """The latest event of each key, as a view without Kafka holds it."""

    def __init__(self, *events: Envelope[Any]) -> None:
        self.latest: dict[str, Envelope[Any]] = {}
        self._observers: list[Callable[[Envelope[Any]], None]] = []
        for event in events:
            self.tell(event)

    def get(self, key: str) -> Envelope[Any] | None:
        return self.latest.get(key)

    def values(self) -> list[Envelope[Any]]:
        return list(self.latest.values())

    def on_change(self, observer: Callable[[Envelope[Any]], None]) -> None:
        self._observers.append(observer)

    def on_removal(self, observer: Callable[[str], None]) -> None:
        """Nothing is removed here."""

    def put(self, data: Event) -> None:
        self.tell(wrap(data))

    def tell(self, event: Envelope[Any]) -> None:
        self.latest[event.data.record_key] = event
        for observer in self._observers:
            observer(event)

    async def refresh(self) -> None:
        """Everything is here already."""
