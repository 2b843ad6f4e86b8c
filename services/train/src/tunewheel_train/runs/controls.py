"""Folds what the log says about runs: people's commands, and newer versions of a dataset."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Awaitable, Callable

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import (
    SweepRequested,
    TrainAction,
    TrainControl,
    TrainFailed,
    TrainStarted,
)
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.service import Position
from tunewheel_runtime.store import ObjectStore


class Controls:
    """The latest command to each run, also for a worker that starts later. Give it every accepted
    ``train.control`` from the beginning of the log.

    A command counts only for a run of its own project, because its sender is an operator of that project. A
    copy of an earlier command has no effect.
    """

    def __init__(self) -> None:
        self._latest: dict[tuple[str, str], TrainAction] = {}
        """By project and run."""
        self._applied: set[str] = set()
        """The ids of commands."""
        self._changed = asyncio.Event()

    def apply(self, event: Envelope[TrainControl]) -> None:
        if (command_id := event.data.event_id()) in self._applied:
            return
        self._applied.add(command_id)
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


FOLDER = "commands"
ACCEPTED = b"accepted"

Command = TrainControl | SweepRequested
Check = Callable[[Command], Awaitable[None]]
"""Raises ``InvalidEvent`` unless the sender of a command may send it now."""
PredatesSignatures = Callable[[Position], bool]
"""Returns whether the command at this position is older than signatures."""


class Commands:
    """Accepts the commands whose sender was an operator when train first read them.

    Every worker reads all commands from the beginning of the log at each start. The decision on a command is
    stored once, so all workers agree. A role that a person gets or loses later does not change earlier
    decisions.
    """

    def __init__(
        self, store: ObjectStore, check: Check, predates: PredatesSignatures, backoff: Backoff
    ) -> None:
        self._store = store
        self._check = check
        self._predates = predates
        self._backoff = backoff

    async def is_accepted(self, event: Envelope[TrainControl], position: Position) -> bool:
        """Return whether a command on the log is accepted. Raises TransientError: the store stays away."""

        async def ask() -> bool:
            return await self._decided(event.data, position) == ACCEPTED

        return await retry(ask, self._backoff, what="deciding on a command")

    async def demand_accepted(self, event: Envelope[TrainControl] | Envelope[SweepRequested]) -> None:
        """Raise an error for a command that is not accepted.

        Raises:
            InvalidEvent: with the field and the reason of the stored decision.
            TransientError: the store is away.
        """
        decided = await self._decided(event.data)
        if decided != ACCEPTED:
            raise InvalidEvent(**json.loads(decided))

    async def _decided(self, command: Command, position: Position | None = None) -> bytes:
        path = f"{FOLDER}/{command.project}/{command.event_id()}"
        decided = await self._store.read(path)
        return decided or await self._store.first(path, await self._decide(command, position))

    async def _decide(self, command: Command, position: Position | None) -> bytes:
        # A release that asked nobody for a role has obeyed it.
        if command.principal is None and position is not None and self._predates(position):
            return ACCEPTED
        try:
            await self._check(command)
        except InvalidEvent as error:
            return json.dumps({"field": error.field, "reason": error.reason}).encode()
        return ACCEPTED


class Versions:
    """Give it every ``dataset.versioned``, ``train.started`` and ``train.failed`` since the log began.

    A version is superseded by the next version on the log, even if more follow. So a worker that decides
    again after a kill decides the same. A version that is published again keeps its place.
    """

    def __init__(self) -> None:
        self._order: defaultdict[str, dict[str, None]] = defaultdict(dict)
        self._begun: dict[str, str] = {}
        """The dataset version of each run that began."""
        self._failed: dict[str, int] = {}
        """By dataset version: the latest attempt that failed."""
        self._events: dict[str, Envelope[DatasetVersioned]] = {}
        """By dataset version, its event."""
        self._started: dict[str, int] = {}
        """By dataset version: the latest attempt that began."""
        self._versions_of: dict[str, str] = {}
        """The dataset version of each run that failed. A run whose base was not found, or not looked for, has
        another id than the next attempt."""
        self._changed = asyncio.Event()

    def versioned(self, event: Envelope[DatasetVersioned]) -> None:
        self._order[event.data.project].setdefault(event.data.dataset_id)
        self._events.setdefault(event.data.dataset_id, event)
        self._changed.set()
        self._changed = asyncio.Event()

    def began(self, event: Envelope[TrainStarted]) -> None:
        self._begun[event.data.run_id] = event.data.dataset_id
        before = self._started.get(event.data.dataset_id, 0)
        self._started[event.data.dataset_id] = max(before, event.data.attempt or 1)

    def failed(self, event: Envelope[TrainFailed]) -> None:
        before = self._failed.get(event.data.dataset_id, 0)
        self._failed[event.data.dataset_id] = max(before, event.data.attempt or 1)
        self._versions_of[event.data.run_id] = event.data.dataset_id

    def attempt_at(self, dataset_id: str) -> int:
        """Return the number of an attempt at ``dataset_id`` that begins now: one more than the last failed
        attempt on the log. An attempt that another worker goes on with keeps its number."""
        return self._failed.get(dataset_id, 0) + 1

    def failed_version(self, project: str, run_id: str) -> Envelope[DatasetVersioned] | None:
        """Return the event of the version whose run failed, was cancelled or superseded, and did not begin
        again. None: there is no such run."""
        dataset_id = self._versions_of.get(run_id, "")
        event = self._events.get(dataset_id)
        if event is None or event.project != project:
            return None
        return None if self._started.get(dataset_id, 0) > self._failed[dataset_id] else event

    def version(self, project: str, dataset_id: str) -> DatasetVersioned | None:
        """Return the event of a version; None: the project has no such version."""
        event = self._events.get(dataset_id)
        return event.data if event is not None and event.project == project else None

    def run_of(self, dataset_id: str) -> str | None:
        """Return the run on ``dataset_id`` that began last; None: no run has begun."""
        return next((run for run, of in reversed(self._begun.items()) if of == dataset_id), None)

    def superseding(self, project: str, dataset_id: str, controls: Controls) -> str | None:
        """Return the version that supersedes ``dataset_id``; None: there is none, a run of it has begun, or a
        person resumed one that failed."""
        known = list(self._order[project])
        if dataset_id in self._started or dataset_id not in known[:-1]:
            return None
        failed = (run_id for run_id, of in self._versions_of.items() if of == dataset_id)
        if any(controls.is_resumed(project, run_id) for run_id in failed):
            return None
        return known[known.index(dataset_id) + 1]

    async def wait(self, wanted: Callable[[], bool]) -> None:
        """Return when ``wanted`` is true. It is checked now and after every new version."""
        while not wanted():
            await self._changed.wait()
