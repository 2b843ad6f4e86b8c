"""Decides which job runs next. The jobs of all projects wait for the same few slots of a process.

A free slot goes to the project that holds the fewest slots, then to the project whose last slot was given the
longest ago. Within a project the highest priority goes first, then the first to arrive. So a project that
asks for a thousand jobs delays the job of another project by one of its jobs, not by a thousand. Shares count
jobs, not seconds: no running job is stopped for another project's, except background jobs.

Background jobs run while no other job of any project waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from itertools import count

import structlog

from tunewheel_runtime.waiting import first_of

log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Job:
    project: str
    order: tuple[bool, int, int]
    """The order within a project: whether it is a background job, its negative priority, its arrival."""
    stop: asyncio.Event
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    slot: int | None = None

    @property
    def is_background(self) -> bool:
        return self.order[0]


class Slots:
    """``number`` jobs run at once; each holds one of the slots 0 to number - 1."""

    def __init__(self, number: int) -> None:
        self._free = list(range(number))
        self._arrivals = count()
        self._waiting: dict[str, list[_Job]] = {}
        """By project: its jobs in the order in which they get slots."""
        self._held: list[_Job] = []
        self._holds: Counter[str] = Counter()
        self._given = count()
        self._last: dict[tuple[bool, str], int] = {}
        """By project, and apart for its background jobs: when it was given its last slot."""

    @contextlib.asynccontextmanager
    async def hold(
        self, project: str, lost: asyncio.Event, *, job: str, priority: int = 0, background: bool = False
    ) -> AsyncGenerator[int | None]:
        """Wait for a slot, and hold it during the body. Yield its number; None: ``lost`` was set first.

        Args:
            job: the name of the job, for the log.
            background: the job runs while no other job waits. If one comes, ``lost`` is set.
        """
        mine = _Job(project, (background, -priority, next(self._arrivals)), lost)
        own = self._waiting.setdefault(project, [])
        insort(own, mine, key=lambda one: one.order)
        self._give()
        if mine.slot is None:  # log it: there is no event about a job that waits
            ahead = bisect_left(own, mine.order, key=lambda one: one.order)
            log.info("job_waits", job=job, project=project, ahead=ahead, projects=len(self._waiting))
            self._make_room()
        try:
            await first_of(mine.turn.wait(), lost.wait())
            yield mine.slot
        finally:
            if mine.slot is None:
                self._leave(mine)
            else:
                heapq.heappush(self._free, mine.slot)
                self._held.remove(mine)
                self._holds[project] -= 1
            self._give()

    def _give(self) -> None:
        while self._free and self._waiting:
            chosen = self._waiting[min(self._waiting, key=self._rank)][0]
            self._leave(chosen)
            chosen.slot = heapq.heappop(self._free)
            self._held.append(chosen)
            self._holds[chosen.project] += 1
            self._last[chosen.is_background, chosen.project] = next(self._given)
            chosen.turn.set()

    def _leave(self, job: _Job) -> None:
        own = self._waiting[job.project]
        own.remove(job)
        if not own:
            del self._waiting[job.project]

    def _make_room(self) -> None:
        """Stop a background job for each other job that waits."""
        holders = [one for one in self._held if one.is_background]
        if holders:
            wanted = sum(not one.is_background for own in self._waiting.values() for one in own)
            for holder in holders[:wanted]:
                holder.stop.set()

    def _rank(self, project: str) -> tuple[bool, int, int, int]:
        first = self._waiting[project][0]
        last = self._last.get((first.is_background, project), -1)
        return first.is_background, self._holds[project], last, first.order[2]
