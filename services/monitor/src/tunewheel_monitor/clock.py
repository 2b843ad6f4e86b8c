"""What ends at a certain time ends without traffic too: looks after the projects of this process's partitions
every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.partitions import Settled

log = structlog.get_logger(__name__)


@dataclass
class Clock:
    """``settled`` tells which partitions this process has, and has read to their ends: what waits on the log
    comes before the clock. An error that nobody here can answer goes to ``failed``."""

    seconds: float
    projects: Callable[[], Iterable[str]]
    settled: Callable[[], Awaitable[Settled]]
    tick: Callable[[str], Awaitable[None]]
    failed: Callable[[BaseException], None]
    _task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="clock")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
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
        """Look after every project once."""
        settled = await self.settled()
        for project in self.projects():
            if settled.holds(project):
                await self.tick(project)
