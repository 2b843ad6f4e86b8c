"""Launches runs and sweeps as Jobs in a cluster, polls them, and takes over Jobs of another process."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import structlog
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import SweepRequested, TrainAction, TrainFailed
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.sweep import SweepState
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ObjectStore

from tunewheel_train.errors import RunFailed
from tunewheel_train.launching.jobs import JobRefused, Jobs
from tunewheel_train.launching.launch import Asked, Launch, Outcome, launch_of, under_way
from tunewheel_train.runs import bases
from tunewheel_train.runs.attempts import Tell
from tunewheel_train.runs.controls import Controls, Versions
from tunewheel_train.runs.runs import failed, plan_run, unresolved_base
from tunewheel_train.runs.starting import decided, fetch_dataset
from tunewheel_train.sweeping import cut_off

log = structlog.get_logger(__name__)
MOST_HICCUPS = 20
"""After so many failed polls in a row the service reports that it cannot go on."""


class ClusterTrainings:
    """Trains each run and each sweep in a Job of its own and publishes the outcome. A sweep's Job has one
    node, whose slots its runs share. The Job does not depend on this process:
    it goes on while the service restarts or the partition moves. The process that handles the event next
    finds the Job by its name."""

    def __init__(
        self,
        store: ObjectStore,
        launcher: Jobs,
        controls: Controls,
        versions: Versions,
        *,
        every: float,
        patience: float,
    ) -> None:
        """``every``: seconds between two polls of a Job. ``patience``: seconds that a cancelled run may take
        to report how far it came."""
        self._store = store
        self._launcher = launcher
        self._controls = controls
        self._versions = versions
        self._every = every
        self._patience = patience
        self._choosing = asyncio.Lock()

    async def train(self, event: Asked, lease: Lease, tell: Tell) -> None:
        """Train the run or the sweep that ``event`` asks for, and publish its outcome with ``tell``, unless
        that was done.

        Raises:
            InvalidEvent: the event does not fit the manifest it points to.
            LeaseLost: the partition moved. Its next owner waits for the Job, which goes on.
            TransientError: the store or the cluster is away.
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
        ended = outcome.completed or outcome.failed or outcome.swept
        assert ended is not None
        await launch.delete_tries(self._store)
        await tell(ended)
        await launch_of(event, lease).note_told(self._store)

    async def _ended(self, launch: Launch, lease: Lease) -> Outcome:
        """Make the Job and return its outcome."""
        try:
            await self._make_job(launch)
            return await self._awaited(launch, lease)
        except JobRefused as error:
            return await launch.end(self._store, await self._failed(launch, str(error)))

    async def _make_job(self, launch: Launch) -> None:
        asked = launch.event.data
        one_node = isinstance(asked, SweepRequested)
        await self._launcher.ensure(launch.name, labels=_labels(asked), one_node=one_node)
        log.info("run_launched", job=launch.name, dataset_id=asked.dataset_id)

    async def _awaited(self, launch: Launch, lease: Lease) -> Outcome:
        """Poll the Job until it has ended, and return its outcome."""
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
        """Poll the Job once and apply the latest command. Return its outcome; None: it has not ended."""
        launch = watched.launch
        state = await self._launcher.state(launch.name)
        # read after the state: a Job writes its outcome before it ends
        outcome = await launch.outcome(self._store)
        if outcome is not None:
            return outcome
        if state is None and watched.first:  # an older Job of this name was still being deleted
            await self._make_job(launch)
            return None
        if state is None or state.failure is not None or state.complete:
            how = "was deleted" if state is None else f"ended: {state.failure or 'without an outcome'}"
            reason = f"its Job {launch.name} {how}; see its pods' logs"
            return await launch.end(self._store, await self._failed(launch, reason))
        wanted = self._command(launch.event.data)
        cancelled = watched.cancelled_for(wanted)
        # a run that has begun reports its cancellation itself, unless its first pod is missing
        if cancelled is not None and (not state.begun or cancelled >= self._patience):
            cut = await self._failed(launch, "was cancelled", SweepState.CANCELLED)
            outcome = await launch.end(self._store, cut)
            await self._launcher.pause(launch.name, paused=True)
            return outcome
        if state.paused != (wanted is TrainAction.PAUSE):
            await self._launcher.pause(launch.name, paused=not state.paused)
        return None

    def _command(self, asked: DatasetVersioned | SweepRequested) -> TrainAction:
        """Return the last command to the sweep, or to the run of the version if one is known to have
        begun."""
        sweeps = isinstance(asked, SweepRequested)
        trained = asked.sweep_id if sweeps else self._versions.run_of(asked.dataset_id)
        return self._controls.latest(asked.project, trained) if trained else TrainAction.RESUME

    async def _failed(self, launch: Launch, reason: str, state: SweepState = SweepState.FAILED) -> Outcome:
        """Return the outcome of what no pod trains any more. ``state``: that of a sweep."""
        asked = launch.event.data
        if isinstance(asked, SweepRequested):
            field = "(run)" if state is SweepState.FAILED else ""
            return Outcome(swept=await cut_off(self._store, asked, state, field=field, reason=reason))
        return Outcome(failed=await self._failed_run(asked, f"{reason}; `tunewheel run resume` goes on"))

    async def _failed_run(self, version: DatasetVersioned, reason: str) -> TrainFailed:
        manifest = await fetch_dataset(self._store, version)
        name = manifest.spec.base_model
        revision = await bases.pinned(self._store, manifest)
        base = BaseModelRef(name=name, revision=revision) if revision else unresolved_base(name)
        start = await decided(self._store, manifest)
        run = plan_run(manifest, version.manifest, base, start=start)
        told = failed(run, RunFailed(field="(run)", reason=reason))
        run_id = self._versions.run_of(version.dataset_id) or told.run_id
        attempt = self._versions.attempt_at(version.dataset_id)
        return told.model_copy(update={"run_id": run_id, "attempt": attempt})


@dataclass(slots=True)
class _Watched:
    """A launch that is polled."""

    launch: Launch
    first: bool = True
    """Whether the next poll is the first."""
    _cancelled_at: float | None = None

    def cancelled_for(self, wanted: TrainAction) -> float | None:
        """Return how many seconds ago ``wanted`` became "cancel"; None: it is another command."""
        if wanted is not TrainAction.CANCEL:
            self._cancelled_at = None
            return None
        now = time.monotonic()
        self._cancelled_at = now if self._cancelled_at is None else self._cancelled_at
        return now - self._cancelled_at


def _labels(asked: DatasetVersioned | SweepRequested) -> dict[str, str]:
    """Return labels by which people find the pods. The value of a label must end with a letter or digit."""
    named = {"project": asked.project, "dataset": asked.dataset_id}
    if isinstance(asked, SweepRequested):
        named["sweep"] = asked.sweep_id
    return {f"tunewheel.io/{label}": value.strip("._-") for label, value in named.items()}
