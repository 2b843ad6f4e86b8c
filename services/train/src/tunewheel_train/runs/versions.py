"""Folds the versions of each project in the order of the log, and the runs that began."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainStarted

from tunewheel_train.runs.runs import Run


class Versions:
    """Give it every ``dataset.versioned`` and ``train.started`` from the beginning of the log.

    A version is superseded by the next version on the log, even if more follow. So a worker that decides
    again after a kill decides the same. A version that is published again keeps its place.
    """

    def __init__(self) -> None:
        self._order: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._begun: dict[str, str] = {}
        """The dataset version of each run that began."""
        self._changed = asyncio.Event()

    def versioned(self, event: Envelope[DatasetVersioned]) -> None:
        self._order[event.data.project].setdefault(event.data.dataset_id)
        self._changed.set()
        self._changed = asyncio.Event()

    def began(self, event: Envelope[TrainStarted]) -> None:
        self._begun[event.data.run_id] = event.data.dataset_id

    def run_of(self, dataset_id: str) -> str | None:
        """Return the run on ``dataset_id`` that began last; None: no run has begun."""
        return next((run for run, of in reversed(self._begun.items()) if of == dataset_id), None)

    def superseding(self, run: Run) -> str | None:
        """Return the version that supersedes that of ``run``; None: there is none, or the run has begun."""
        known = list(self._order[run.project])
        if run.run_id in self._begun or run.dataset_id not in known[:-1]:
            return None
        return known[known.index(run.dataset_id) + 1]

    async def wait(self, wanted: Callable[[], bool]) -> None:
        """Return when ``wanted`` is true. It is checked now and after every new version."""
        while not wanted():
            await self._changed.wait()
