"""Reads the latest events of topics that carry traffic. Counts dead letters, and undoes reviews and commands
that became dead letters."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

import structlog
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import BY_NAME, REVIEW_SUBMITTED, TOPICS, TRAIN_CONTROL, TopicSpec
from tunewheel_runtime.deadletter import Check, Position, Undecoded, refused, unchecked
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.log import decode, follow
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.waiting import end_all

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
        told: Callable[[Undecoded, Envelope[Any] | None], None] = lambda _letter, _event: None,
        check: Check = unchecked,
        latest: int,
    ) -> None:
        """``told`` gets every dead letter, with the event that it holds (``event_in``)."""
        self._options = client_options(settings)
        self._names = [topic.name for topic in topics]
        self._letters = {topic.dead_letter: topic.name for topic in TOPICS if topic.dead_letter_exists}
        self._apply = apply
        self._count = count
        self._refuse = refuse
        self._told = told
        self._check = check
        self._latest = latest
        self._refused: defaultdict[str, set[tuple[str, Position]]] = defaultdict(set)
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        for work in (self._follow, self._count_letters):
            self._tasks.append(asyncio.create_task(self._patiently(work), name=work.__name__))

    async def stop(self) -> None:
        await end_all(*self._tasks)
        self._tasks.clear()

    async def _patiently(self, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await work()
            except TransientError as error:
                log.warning("traffic_unreadable", work=work.__name__, error=str(error))
                await asyncio.sleep(COUNT_SECONDS)

    async def _follow(self) -> None:
        async for records in follow(self._options, self._names, last=self._latest):
            for record in records:
                with contextlib.suppress(InvalidEvent):  # such an event is counted as a dead letter
                    self._apply(decode(record))

    async def _count_letters(self) -> None:
        async for letters in follow(self._options, list(self._letters)):
            for letter in letters:
                topic = self._letters[letter.position.topic]
                self._refused[topic].add(refused(letter))
                event = event_in(letter, BY_NAME[topic], self._check)
                self._told(letter, event)
                if event is not None and topic in DECISIONS:
                    self._refuse(event)
            self._count({name: len(found) for name, found in self._refused.items()})


def event_in(letter: Undecoded, topic: TopicSpec, check: Check) -> Envelope[Any] | None:
    """Return the event of ``topic`` that became a dead letter. None: the letter holds no such event, or a
    command that nobody signed, which must not undo the real command of the same id."""
    try:
        event = decode(letter, topic)
        check(topic, event, replace(letter, position=refused(letter)[1]))
    except InvalidEvent:
        return None
    return event
