"""Runs in a cluster, seen from the service: launched, looked at, and taken over from another process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Protocol

import structlog
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainAction
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore

from tunewheel_train.errors import RunFailed
from tunewheel_train.launching.jobs import JobRefused, JobState
from tunewheel_train.launching.launch import Launch, Outcome, launch_of, under_way
from tunewheel_train.runs import bases
from tunewheel_train.runs.attempts import Tell
from tunewheel_train.runs.controls import Controls
from tunewheel_train.runs.preparing import fetch_dataset
from tunewheel_train.runs.runs import failed, plan_run, unresolved_base
from tunewheel_train.runs.versions import Versions

log = structlog.get_logger(__name__)
MOST_HICCUPS = 20
"""Looks in a row that fail before the service tells that it cannot go on."""


class Launcher(Protocol):
    """Starts and stops what trains; ``jobs.Jobs`` is one."""

    async def ensure(self, name: str, *, labels: dict[str, str]) -> None: ...

    async def state(self, name: str) -> JobState | None: ...

    async def pause(self, name: str, *, paused: bool) -> None: ...


class ClusterTrainings:
    """Has each run trained by a Job of its own and returns what came of it. The Job needs nothing of this
    process: it goes on while the service restarts, or its partition moves, and whoever handles the event next
    finds it by its name."""

    def __init__(
        self,
        store: ObjectStore,
        launcher: Launcher,
        controls: Controls,
        versions: Versions,
        *,
        every: float,
        patience: float,
    ) -> None:
        """``every``: seconds between two looks at a Job. ``patience``: seconds that a cancelled run may take
        to say how far it came."""
        self._store = store
        self._launcher = launcher
        self._controls = controls
        self._versions = versions
        self._every = every
        self._patience = patience
        self._choosing = asyncio.Lock()

    async def train(self, event: Envelope[DatasetVersioned], lease: Lease, tell: Tell) -> None:
        """``tell`` the outcome of the run that ``event`` asks for, unless it was told.

        Raises:
            InvalidEvent: the event does not fit the manifest it points to.
            LeaseLost: another process waits for the Job from now on; it goes on.
            TransientError: store or cluster are away.
        """
        async with self._choosing:
            launch = launch_of(event, lease)
            if await launch.is_told(self._store):
                return
            if await launch.outcome(self._store) is None:
                launch = await under_way(self._store, event) or launch
                await launch.put(self._store)
        outcome = await launch.outcome(self._store) or await self._ended(launch, lease)
        lease.check()
        if outcome.refused is not None:
            raise InvalidEvent(field=outcome.refused.field, reason=outcome.refused.reason)
        ended = outcome.completed or outcome.failed
        assert ended is not None
        await launch.delete_tries(self._store)
        await tell(ended)
        await launch_of(event, lease).note_told(self._store)

    async def _ended(self, launch: Launch, lease: Lease) -> Outcome:
        """Have a Job train it and return how it ended."""
        try:
            await self._make_job(launch)
            return await self._awaited(launch, lease)
        except JobRefused as error:
            return await launch.end(self._store, await self._failed(launch, str(error)))

    async def _make_job(self, launch: Launch) -> None:
        version = launch.event.data
        await self._launcher.ensure(launch.name, labels=_labels(version))
        log.info("run_launched", job=launch.name, dataset_id=version.dataset_id)

    async def _awaited(self, launch: Launch, lease: Lease) -> Outcome:
        """Look until it has ended."""
        hiccups, watched = 0, _Watched(launch)
        while True:
            try:
                outcome = await self._looked_at(watched)
            except TransientError as error:
                hiccups += 1
                if hiccups == MOST_HICCUPS:
                    raise
                log.warning("job_not_looked_at", job=launch.name, error=str(error))
            else:
                if outcome is not None:
                    return outcome
                hiccups = 0
            watched.first = False
            await lease.pause(self._every)

    async def _looked_at(self, watched: _Watched) -> Outcome | None:
        """Return how it ended; None: it has not, and the Job is as commands want it."""
        launch = watched.launch
        state = await self._launcher.state(launch.name)
        # after the state: a Job that has ended has written its outcome before
        outcome = await launch.outcome(self._store)
        if outcome is not None:
            return outcome
        if state is None and watched.first:  # one of that name was still being deleted when this one was made
            await self._make_job(launch)
            return None
        if state is None or state.failure is not None or state.complete:
            how = "was deleted" if state is None else f"ended: {state.failure or 'without an outcome'}"
            reason = f"its Job {launch.name} {how}; see its pods' logs, then `tunewheel train resume` goes on"
            return await launch.end(self._store, await self._failed(launch, reason))
        wanted = self._command(launch.event.data)
        cancelled = watched.cancelled_for(wanted)
        # a run that has begun says by itself how far, unless its first pod is the one that is missing
        if cancelled is not None and (not state.begun or cancelled >= self._patience):
            reason = "was cancelled; `tunewheel train resume` trains it after all"
            outcome = await launch.end(self._store, await self._failed(launch, reason))
            await self._launcher.pause(launch.name, paused=True)
            return outcome
        if state.paused != (wanted is TrainAction.PAUSE):
            await self._launcher.pause(launch.name, paused=not state.paused)
        return None

    def _command(self, version: DatasetVersioned) -> TrainAction:
        """Return the last command to the run, as far as one is known to have begun."""
        run_id = self._versions.run_of(version.dataset_id)
        return self._controls.latest(version.project, run_id) if run_id else TrainAction.RESUME

    async def _failed(self, launch: Launch, reason: str) -> Outcome:
        version = launch.event.data
        manifest = await fetch_dataset(self._store, version)
        name = manifest.spec.base_model
        revision = await bases.pinned(self._store, manifest)
        base = BaseModelRef(name=name, revision=revision) if revision else unresolved_base(name)
        run = plan_run(manifest, version.manifest, base)
        told = failed(run, RunFailed(field="(run)", reason=reason))
        run_id = self._versions.run_of(version.dataset_id) or told.run_id
        return Outcome(failed=told.model_copy(update={"run_id": run_id}))


@dataclass(slots=True)
class _Watched:
    """A launch that is looked at."""

    launch: Launch
    first: bool = True
    """No look was taken before."""
    _cancelled_at: float | None = None

    def cancelled_for(self, wanted: TrainAction) -> float | None:
        """Return for how many seconds ``wanted`` has been to cancel it; None: something else is wanted."""
        if wanted is not TrainAction.CANCEL:
            self._cancelled_at = None
            return None
        now = time.monotonic()
        self._cancelled_at = now if self._cancelled_at is None else self._cancelled_at
        return now - self._cancelled_at


def _labels(version: DatasetVersioned) -> dict[str, str]:
    """For people who look for a run's pods. A label's value ends with a letter or digit."""
    return {
        "tunewheel.io/project": version.project.strip("._-"),
        "tunewheel.io/dataset": version.dataset_id.strip("._-"),
    }
