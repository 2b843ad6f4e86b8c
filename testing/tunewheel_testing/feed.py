"""Follows all events of the wheel: waits for them, counts them, finds them."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any, Self

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TOPICS, TopicSpec
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.service import Position
from tunewheel_runtime.view import LogReader

Where = Callable[[Envelope[Any]], bool]


class EventFeed:
    """Follows every topic from the beginning of the log.

    An event counts once, however often it is delivered, because its id follows from its cause.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self.events: dict[str, Envelope[Any]] = {}
        self.by_topic: dict[str, list[Envelope[Any]]] = defaultdict(list)
        self.deliveries: Counter[str] = Counter()
        self._observers: list[Callable[[Envelope[Any]], None]] = []
        self._arrived = asyncio.Event()
        self._failure: BaseException | None = None
        self._reader = LogReader(settings, TOPICS, self._take, failed=self._fail)

    async def __aenter__(self) -> Self:
        await self._reader.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._reader.stop()

    def observe(self, observer: Callable[[Envelope[Any]], None]) -> None:
        """Call ``observer`` with every new event from now on."""
        self._observers.append(observer)

    def forget(self, observer: Callable[[Envelope[Any]], None]) -> None:
        self._observers.remove(observer)

    def counts(self) -> dict[str, int]:
        """Return the number of distinct events by topic, without topics that have none."""
        return {topic: len(events) for topic, events in sorted(self.by_topic.items())}

    def find(self, topic: TopicSpec, where: Where = lambda _: True) -> Envelope[Any] | None:
        """Return the earliest event of ``topic`` that fits, if one has arrived."""
        return next((event for event in self.by_topic[topic.name] if where(event)), None)

    async def first(
        self, topic: TopicSpec, where: Where = lambda _: True, *, patience: float = 600.0
    ) -> Envelope[Any]:
        """Return the earliest event of ``topic`` that fits, waiting for it.

        Raises:
            TimeoutError: no such event came within ``patience`` seconds.
        """
        return await self.first_of((topic,), where, patience=patience)

    async def first_of(
        self, topics: tuple[TopicSpec, ...], where: Where = lambda _: True, *, patience: float = 600.0
    ) -> Envelope[Any]:
        """Return the first event of any of ``topics`` that fits; see ``first``."""
        found: list[Envelope[Any]] = []

        def look() -> bool:
            found.extend(e for t in topics if (e := self.find(t, where)) is not None)
            return bool(found)

        await self.until(look, patience=patience, what=" or ".join(t.name for t in topics))
        return found[0]

    async def until(self, condition: Callable[[], bool], *, patience: float, what: str) -> None:
        """Wait until ``condition`` holds. It is checked after every event."""
        try:
            async with asyncio.timeout(patience):
                while not condition():
                    if self._failure is not None:
                        raise self._failure
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise TimeoutError(f"waited {patience:g} s for {what}; so far: {self.counts()}") from None

    def _fail(self, error: BaseException) -> None:
        self._failure = error
        self._arrived.set()

    def _take(self, envelope: Envelope[Any], _: Position) -> None:
        self.deliveries[envelope.data.type] += 1
        if envelope.id in self.events:
            return
        self.events[envelope.id] = envelope
        self.by_topic[envelope.data.type].append(envelope)
        for observer in list(self._observers):
            observer(envelope)
        self._arrived.set()
