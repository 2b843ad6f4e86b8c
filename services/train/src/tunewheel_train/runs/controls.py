"""Commands to runs, as the log has them: the latest per run counts, also for a worker that starts later."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.training import TrainAction, TrainControl


class Controls:
    """Fed with every train.control from the beginning of the log."""

    def __init__(self) -> None:
        self._latest: dict[str, TrainAction] = {}
        self._changed = asyncio.Event()

    def apply(self, event: Envelope[TrainControl]) -> None:
        self._latest[event.data.run_id] = event.data.action
        self._changed.set()
        self._changed = asyncio.Event()

    def latest(self, run_id: str) -> TrainAction:
        """The last command to this run; without one it may go on."""
        return self._latest.get(run_id, TrainAction.RESUME)

    def is_resumed(self, run_id: str) -> bool:
        """Whether somebody asked, last, for this run to be trained."""
        return self._latest.get(run_id) is TrainAction.RESUME

    async def wait(self, run_id: str, wanted: Callable[[TrainAction], bool]) -> TrainAction:
        """Return the run's latest command as soon as it is one of ``wanted``."""
        while not wanted(self.latest(run_id)):
            await self._changed.wait()
        return self.latest(run_id)
