"""Checks deadlines every few seconds for the projects of this process's partitions, since deadlines also pass
without traffic."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import structlog
from tunewheel_contracts import topics
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.partitions import Backlog, Settled
from tunewheel_runtime.waiting import end_all

log = structlog.get_logger(__name__)
TRAFFIC = (topics.INFERENCE_COMPLETED, topics.FEEDBACK_RECEIVED, topics.ANSWERS_COMPARED)
"""The topics whose events any process of the monitor scores."""


class Handled(Protocol):
    """The part of a service that says how far topics are handled."""

    async def settled(self, topic: TopicSpec) -> Settled: ...

    async def backlog(self, topic: TopicSpec) -> Backlog: ...


class Progress:
    """Says whether all evidence is folded. Since traffic never ends, "all" means the events at the previous
    check."""

    def __init__(self, service: Handled) -> None:
        self._service = service
        self._ends: dict[str, Mapping[int, int]] = {}

    async def settled(self) -> Settled:
        """Return the partitions whose scores are folded here to their ends. None while traffic of the
        previous check has no scores yet.

        Raises:
            TransientError: the broker does not answer.
        """
        found = {topic.name: await self._service.backlog(topic) for topic in TRAFFIC}
        before, self._ends = self._ends, {name: backlog.ends for name, backlog in found.items()}
        if not before or not all(found[name].has_kept(ends) for name, ends in before.items()):
            return Settled(0, frozenset())
        return await self._service.settled(topics.INFERENCE_SCORED)


@dataclass
class Clock:
    """Calls the watch for every project that is settled. ``settled`` returns the partitions that this process
    owns and has read to their ends: events on the log come before the clock. Unexpected errors go to
    ``failed``."""

    seconds: float
    projects: Callable[[], Iterable[str]]
    settled: Callable[[], Awaitable[Settled]]
    tick: Callable[[str], Awaitable[None]]
    failed: Callable[[BaseException], None]
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="clock")

    async def stop(self) -> None:
        await end_all(self._task)
        self._task = None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self.seconds)
            try:
                await self.once()
            except TransientError as error:
                log.warning("clock_late", error=str(error))
            except Exception as error:
                self.failed(error)
                return

    async def once(self) -> None:
        """Check every project once."""
        settled = await self.settled()
        for project in self.projects():
            if settled.holds(project):
                await self.tick(project)
