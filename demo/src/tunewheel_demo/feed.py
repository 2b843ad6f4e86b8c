"""The events of the demo's wheel, as its console tells them: waits for them, counts them, finds them."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tunewheel_client import AsyncClient, Gap
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import (
    BY_NAME,
    FEEDBACK_RECEIVED,
    INFERENCE_COMPLETED,
    NOT_SHOWN,
    TOPICS,
    TopicSpec,
)

FOLLOWED = [spec for spec in TOPICS if spec not in (*NOT_SHOWN, INFERENCE_COMPLETED, FEEDBACK_RECEIVED)]
Where = Callable[[Envelope[Any]], bool]


class EventsMissed(TunewheelError):
    """The console did not hold all events for as long as the demo took to ask for them."""


class EventFeed:
    """Follows all topics but those of customers' requests, from now on. An event is kept once, however often
    it is told."""

    def __init__(self) -> None:
        self.by_topic: dict[str, dict[str, Envelope[Any]]] = defaultdict(dict)
        """By topic, its events by id, in the order in which they came."""
        self.failure: BaseException | None = None
        self._observers: list[Callable[[Envelope[Any]], None]] = []
        self._arrived = asyncio.Event()

    async def follow(self, client: AsyncClient) -> None:
        """Take events until cancelled."""
        try:
            async with client.events.follow(types=[spec.name for spec in FOLLOWED]) as events:
                async for told in events:
                    if isinstance(told, Gap):
                        raise EventsMissed("the console does not hold some of the demo's events any more")
                    self.take(
                        Envelope(
                            BY_NAME[told.type].event.model_validate(told.data),
                            told.source,
                            told.id,
                            told.time,
                        )
                    )
        except Exception as error:
            self.failure = error
            self._arrived.set()

    def take(self, event: Envelope[Any]) -> None:
        self.by_topic[event.data.type][event.id] = event
        for observer in list(self._observers):
            observer(event)
        self._arrived.set()

    def of(self, topic: TopicSpec) -> list[Envelope[Any]]:
        """Return the events of ``topic`` so far."""
        return [*self.by_topic[topic.name].values()]

    def observe(self, observer: Callable[[Envelope[Any]], None]) -> None:
        """Call ``observer`` with every event from now on."""
        self._observers.append(observer)

    def forget(self, observer: Callable[[Envelope[Any]], None]) -> None:
        self._observers.remove(observer)

    def counts(self) -> dict[str, int]:
        """Return the number of events by topic, without topics that have none."""
        return {topic: len(events) for topic, events in sorted(self.by_topic.items()) if events}

    def find(self, topic: TopicSpec, where: Where = lambda _: True) -> Envelope[Any] | None:
        """Return the earliest event of ``topic`` that fits, if one has arrived."""
        return next((event for event in self.of(topic) if where(event)), None)

    async def first(
        self, *topics: TopicSpec, where: Where = lambda _: True, patience: float
    ) -> Envelope[Any]:
        """Return the first event of any of ``topics`` that fits, waiting for it.

        Raises:
            TimeoutError: no such event came within ``patience`` seconds.
        """
        found: list[Envelope[Any]] = []

        def look() -> bool:
            found.extend(event for topic in topics if (event := self.find(topic, where)) is not None)
            return bool(found)

        await self.until(look, patience=patience, what=" or ".join(topic.name for topic in topics))
        return found[0]

    async def until(self, condition: Callable[[], bool], *, patience: float, what: str) -> None:
        """Wait until ``condition`` holds. It is checked after every event."""
        try:
            async with asyncio.timeout(patience):
                while not condition():
                    if self.failure is not None:
                        raise self.failure
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise TimeoutError(f"waited {patience:g} s for {what}; so far: {self.counts()}") from None
