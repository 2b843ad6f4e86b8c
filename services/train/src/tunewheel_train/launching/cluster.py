"""Runs in a cluster, seen from the service: launched, looked at, and taken over from another process."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Protocol

import structlog
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainAction, TrainCompleted, TrainFailed
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_train.errors import RunFailed
from tunewheel_train.launching.jobs import JobState
from tunewheel_train.launching.launch import Launch, Outcome, launch_of
from tunewheel_train.runs.controls import Controls
from tunewheel_train.runs.runs import failed, plan_run, read_dataset, unresolved_base
from tunewheel_train.runs.versions import Versions

log = structlog.get_logger(__name__)


class Launcher(Protocol):
    """Starts and stops what trains; ``jobs.Jobs`` is one."""

    async def ensure(self, name: str, *, labels: dict[str, str]) -> None: ...

    async def state(self, name: str) -> JobState | None: ...

    async def suspend(self, name: str, *, suspended: bool) -> None: ...


class ClusterTrainings:
    """Has each run trained by a Job of its own and returns what came of it. The Job needs nothing of this
    process: it goes on while the service restarts, or its partition moves, and whoever handles the event next
    finds it by its name."""

    def __init__(
        self, store: ObjectStore, launcher: Launcher, controls: Controls, versions: Versions, *, every: float
    ) -> None:
        self._store = store
        self._launcher = launcher
        self._controls = controls
        self._versions = versions
        self._every = every

    async def train(self, event: Envelope[DatasetVersioned], lease: Lease) -> TrainCompleted | TrainFailed:
        """Return the outcome of the run that ``event`` asks for.

        Raises:
            InvalidEvent: the event does not fit the manifest it points to.
            LeaseLost: another process waits for the Job from now on; it goes on.
            TransientError: store or cluster are away, or the cluster refuses the Job.
        """
        launch = launch_of(event, lease)
        outcome = await launch.outcome(self._store)
        if outcome is None:
            await launch.put(self._store)
            await self._launcher.ensure(launch.name, labels=_labels(event.data))
            log.info("run_launched", job=launch.name, dataset_id=event.data.dataset_id)
            outcome = await self._awaited(launch, lease)
        if outcome.refused is not None:
            raise InvalidEvent(field=outcome.refused.field, reason=outcome.refused.reason)
        ended = outcome.completed or outcome.failed
        assert ended is not None
        return ended

    async def _awaited(self, launch: Launch, lease: Lease) -> Outcome:
        while True:
            state = await self._launcher.state(launch.name)
            # after the state: a Job that has ended has written its outcome before
            outcome = await launch.outcome(self._store)
            if outcome is not None:
                return outcome
            if state is None or state.failure is not None or state.complete:
                return await launch.end(self._store, await self._without_outcome(launch, state))
            paused = self._is_paused(launch.event.data)
            if state.suspended != paused:
                await self._launcher.suspend(launch.name, suspended=paused)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every):
                    await lease.lost.wait()
            lease.check()

    def _is_paused(self, version: DatasetVersioned) -> bool:
        """A paused run keeps no node: its pods end with a checkpoint."""
        run_id = self._versions.run_of(version.dataset_id)
        return run_id is not None and self._controls.latest(version.project, run_id) is TrainAction.PAUSE

    async def _without_outcome(self, launch: Launch, state: JobState | None) -> Outcome:
        version = launch.event.data
        how = "was deleted" if state is None else f"ended: {state.failure or 'without an outcome'}"
        reason = f"its Job {launch.name} {how}; see its pods' logs, then `tunewheel train resume` goes on"
        try:
            manifest = read_dataset(version, await self._store.get(version.manifest))
        except (ArtifactMissing, CorruptArtifact) as error:
            raise InvalidEvent(field="manifest", reason=str(error)) from error
        run = plan_run(manifest, version.manifest, unresolved_base(manifest.spec.base_model))
        told = failed(run, RunFailed(field="(run)", reason=reason))
        run_id = self._versions.run_of(version.dataset_id) or told.run_id
        return Outcome(failed=told.model_copy(update={"run_id": run_id}))


def _labels(version: DatasetVersioned) -> dict[str, str]:
    """For people who look for a run's pods."""
    return {
        "app.kubernetes.io/part-of": "tunewheel",
        "tunewheel.io/project": version.project,
        "tunewheel.io/dataset": version.dataset_id,
    }
