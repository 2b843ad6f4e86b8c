"""Who trains next on this machine: the highest priority, then the project that had the least, then the first.

Runs of one partition come one after another, those of different partitions wait here together.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from tunewheel_train.runs import Run


@dataclass(eq=False)
class _Waiting:
    project: str
    priority: int
    arrival: int
    turn: asyncio.Event = field(default_factory=asyncio.Event)


class Slots:
    """``count`` runs train at once, one per GPU for instance."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._arrivals = 0
        self._waiting: list[_Waiting] = []
        self._served: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def hold(self, run: Run, lost: asyncio.Event) -> AsyncIterator[None]:
        """Wait for a slot and hold it during the body; the body runs without one where ``lost`` was set first
        and has to check."""
        mine = _Waiting(run.project, run.recipe.priority, self._arrivals)
        self._arrivals += 1
        self._waiting.append(mine)
        self._admit()
        try:
            await _first(mine.turn, lost)
            yield
        finally:
            if mine in self._waiting:
                self._waiting.remove(mine)
            else:
                self._free += 1
            self._admit()

    def _admit(self) -> None:
        while self._free and self._waiting:
            chosen = min(self._waiting, key=self._rank)
            self._waiting.remove(chosen)
            self._free -= 1
            self._served[chosen.project] += 1
            chosen.turn.set()

    def _rank(self, waiting: _Waiting) -> tuple[int, int, int]:
        return -waiting.priority, self._served[waiting.project], waiting.arrival


async def _first(*events: asyncio.Event) -> None:
    """Return when one of ``events`` is set."""
    tasks = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
