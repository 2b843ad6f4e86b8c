"""Folds the accepted commands to runs. The latest command to a run counts, also for a worker that starts
later.

A command counts only for a run of its own project, because its sender is an operator of that project.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.training import TrainAction, TrainControl


class Controls:
    """The latest command to each run. Give it every accepted ``train.control`` from the beginning of the
    log."""

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str], TrainAction] = {}
        """By project and run."""
        self._changed = asyncio.Event()

    def apply(self, event: Envelope[TrainControl]) -> None:
        self._latest[event.project, event.data.run_id] = event.data.action
        self._changed.set()
        self._changed = asyncio.Event()

    def latest(self, project: str, run_id: str) -> TrainAction:
        """Return the last command to this run; without one it may go on."""
        return self._latest.get((project, run_id), TrainAction.RESUME)

    def is_resumed(self, project: str, run_id: str) -> bool:
        """Return whether the last command to this run resumes it."""
        return self._latest.get((project, run_id)) is TrainAction.RESUME

    async def wait(self, project: str, run_id: str, wanted: Callable[[TrainAction], bool]) -> TrainAction:
        """Return the run's latest command as soon as it is one of ``wanted``."""
        while not wanted(self.latest(project, run_id)):
            await self._changed.wait()
        return self.latest(project, run_id)
