"""Executes a run, from its dataset version to its adapter. Knows nothing of Kafka."""

from __future__ import annotations

import asyncio
import shutil
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import structlog
from opentelemetry.metrics import NoOpMeter
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_planner.calibration import Calibration
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.slots import Slots
from tunewheel_runtime.store import ObjectStore

from tunewheel_train.errors import RunFailed, superseded
from tunewheel_train.job import Job
from tunewheel_train.metrics import Metrics
from tunewheel_train.runs import adapters, remote_checkpoints
from tunewheel_train.runs.attempts import Attempt, Tell
from tunewheel_train.runs.bases import Base, Bases, Demand
from tunewheel_train.runs.controls import Controls, Versions
from tunewheel_train.runs.following import Follower, ignore
from tunewheel_train.runs.mlflow_store import MlflowStore
from tunewheel_train.runs.process import WORKER, Last, train_once
from tunewheel_train.runs.runs import (
    Result,
    Run,
    checkpoints_prefix,
    completed,
    failed,
    manifest_path,
    plan_run,
    unresolved_base,
)
from tunewheel_train.runs.starting import ChampionOf, decide_start, decided, fetch_dataset, prepare
from tunewheel_train.runs.tracking import Tracker
from tunewheel_train.runs.tries import Tries
from tunewheel_train.settings import Settings
from tunewheel_train.shortage import full_disk_fails

log = structlog.get_logger(__name__)

RESUMABLE = ("(run)", "(device)", "train.max_hours", "train.max_dollars")
"""Fields of failures after which a run can go on without another dataset version."""
Outcome = TrainCompleted | TrainFailed


class Trainings:
    """Executes runs in processes that the command ``worker`` starts. A run is executed once at a time."""

    def __init__(
        self,
        store: ObjectStore,
        settings: Settings,
        controls: Controls,
        calibration: Calibration | None = None,
        versions: Versions | None = None,
        *,
        worker: Sequence[str] = WORKER,
        metrics: Metrics | None = None,
        champion: ChampionOf | None = None,
    ) -> None:
        self._champion = champion
        self._metrics = metrics or Metrics(NoOpMeter("train"))
        self._store = store
        self._settings = settings
        self._controls = controls
        self._calibration = calibration or Calibration()
        self._versions = versions or Versions()
        self._worker = worker
        self.at_once = settings.train_slots
        """How many runs are trained at once."""
        self._slots = Slots(settings.train_slots)
        uri = settings.mlflow_tracking_uri
        self._tracking = MlflowStore(uri.get_secret_value()) if uri is not None else None
        self._bases = Bases(store, settings, worker)
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def train(
        self, event: DatasetVersioned, *, lease: Lease, tell: Tell, tries: Tries | None = None
    ) -> Outcome:
        """Train the run that ``event`` asks for, unless it is complete, and return the outcome.

        ``tell`` publishes the run's progress. With ``tries`` this is node 0 of several nodes.

        Raises:
            InvalidEvent: the event does not fit the manifest it points to.
            Lease.Lost: the partition moved. A checkpoint was written and uploaded; publish nothing more.
            TransientError: the store is away.
        """
        run = await self._plan(event, lease)
        attempt = self._versions.attempt_at(event.dataset_id)
        if isinstance(run, TrainFailed):
            return run.model_copy(update={"attempt": attempt})
        async with self._turns[run.run_id]:  # the same event may be delivered again during the training
            lease.check()
            return await self._trained(replace(run, attempt=attempt), lease, tell, tries)

    async def follow(self, event: DatasetVersioned, *, lease: Lease, tries: Tries) -> None:
        """Take part in the run that ``event`` asks for, as a node other than node 0.

        Raises:
            InvalidEvent: the event does not fit the manifest it points to.
            Lease.Lost: this node's processes have stopped.
            TransientError: the store is away.
        """
        manifest = await fetch_dataset(self._store, event)
        # a directory per node: nodes may share a volume
        directory = self._settings.runs_dir / f"node-{tries.node.rank}-of-{event.dataset_id}"

        async def prepare_as(said: Job) -> Job:
            with full_disk_fails():
                name = manifest.spec.base_model
                base, facts = await self._bases.search(manifest.project, name, said.base_revision, lease)
                start = await decided(self._store, manifest)
                run = plan_run(manifest, event.manifest, base, facts, start)
                return await prepare(run, self._store, self._settings, directory, {})

        async def train(job: Job) -> Last:
            return await train_once(
                job, self._settings, directory=directory, stop=lease.lost, on_message=ignore,
                worker=self._worker, node=tries.node,
            )  # fmt: skip

        try:
            await Follower(tries, lease.lost, prepare=prepare_as, train=train).follow()
            lease.check()
        finally:
            await asyncio.to_thread(_remove_all_but_logs, directory)

    async def _trained(self, run: Run, lease: Lease, tell: Tell, tries: Tries | None) -> Outcome:
        run_dir = self._settings.runs_dir / run.run_id
        found = await adapters.find(self._store, run)
        if found is not None:
            await self.forget(run.run_id)  # the worker that completed it may have died before it cleaned up
            return completed(*found)
        busy = {run_id for run_id, turn in self._turns.items() if turn.locked()}
        await delete_finished(self._store, self._settings.runs_dir, busy=busy)
        tracker = Tracker(run, self._tracking)
        attempt = self._attempt(run, lease, tell, tracker, tries)
        try:
            with full_disk_fails():
                result = await attempt.finish()
                lease.check()
                manifest, ref = await adapters.publish(self._store, run, run_dir / "adapter", result)
        except RunFailed as error:
            return await self._failed(run, error, attempt, tracker)
        await tracker.completed(manifest)
        await self.forget(run.run_id)
        return completed(manifest, ref)

    def _attempt(
        self, run: Run, lease: Lease, tell: Tell, tracker: Tracker, tries: Tries | None = None
    ) -> Attempt:
        return Attempt(
            run, store=self._store, settings=self._settings, controls=self._controls, lease=lease, tell=tell,
            corrections=self._calibration.corrections(run.recipe.method), slots=self._slots,
            tracker=tracker, versions=self._versions, worker=self._worker, metrics=self._metrics,
            tries=tries,
        )  # fmt: skip

    async def base_of(self, manifest: DatasetManifest, lease: Lease, demand: Demand = lambda: None) -> Base:
        """Find the base model of a version. Raises as ``Bases.of``."""
        with full_disk_fails():
            return await self._bases.of(manifest, lease, demand)

    async def measure(self, run: Run, lease: Lease) -> Result:
        """Train ``run``, which is of a sweep, from its last checkpoint to the part that is asked for. Nothing
        is told of it, and nothing is published. Raises RunFailed, TransientError, Lease.Lost."""

        async def tell(_: Event) -> None:
            """Turns must not take a run of a sweep for one of theirs."""

        tracker = Tracker(run, self._tracking)
        attempt = self._attempt(run, lease, tell, tracker)
        try:
            with full_disk_fails():
                result = await attempt.finish()
        except RunFailed as error:
            error.seconds, error.plan = attempt.seconds, attempt.teller.plan
            await tracker.failed(f"{error.field}: {error.reason}")
            raise
        await tracker.measured(result.outcome.metrics, result.outcome.steps)
        return result

    async def forget(self, run_id: str) -> None:
        """Delete the checkpoints and the data of a run. Raises TransientError."""
        await remote_checkpoints.remove(self._store, checkpoints_prefix(run_id))
        await asyncio.to_thread(shutil.rmtree, self._settings.runs_dir / run_id, ignore_errors=True)

    async def _failed(self, run: Run, error: RunFailed, attempt: Attempt, tracker: Tracker) -> TrainFailed:
        await tracker.failed(f"{error.field}: {error.reason}")
        # Delete files only if the run can never go on. After a lost lease another worker owns it, maybe in
        # this very directory. A run that was cancelled, kept dying, lost its GPU or reached its ceiling may
        # be resumed.
        never_again = error.field not in RESUMABLE or error.superseded_by is not None
        if never_again and not attempt.lease_is_lost:
            await self._forget(run)
        return failed(run, error, attempt.teller.plan if error.out_of_memory else None)

    async def _plan(self, event: DatasetVersioned, lease: Lease) -> Run | TrainFailed:
        manifest = await fetch_dataset(self._store, event)

        def demand_newest() -> None:
            newer = self._versions.superseding(event.project, event.dataset_id, self._controls)
            if newer is not None:
                raise superseded(newer)

        try:
            base, facts = await self.base_of(manifest, lease, demand_newest)
        except RunFailed as error:
            unresolved = unresolved_base(manifest.spec.base_model)
            return failed(plan_run(manifest, event.manifest, unresolved), error)
        start = await decide_start(self._store, manifest, base, self._champion)
        return plan_run(manifest, event.manifest, base, facts, start)

    async def _forget(self, run: Run) -> None:
        """Delete checkpoints and data of a run that failed for good. Its log stays."""
        try:
            await remote_checkpoints.remove(self._store, run.checkpoints_prefix)
        except TransientError as error:  # raising would repeat the training
            log.warning("checkpoints_not_deleted", run_id=run.run_id, error=str(error))
        await asyncio.to_thread(_remove_all_but_logs, self._settings.runs_dir / run.run_id)


def _remove_all_but_logs(run_dir: Path) -> None:
    for path in run_dir.glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix != ".log":
            path.unlink(missing_ok=True)


async def delete_finished(store: ObjectStore, runs_dir: Path, *, busy: Collection[str] = ()) -> None:
    """Delete the directories of complete runs.

    These are left if another worker finished the run, or if this one was killed before it cleaned up. They
    can be large: a checkpoint of ``full`` has 12 bytes per parameter. Runs in ``busy`` are skipped; they
    clean up themselves. Raises TransientError.
    """
    for directory in await asyncio.to_thread(lambda: sorted(runs_dir.glob("run-*"))):
        if directory.name not in busy and await store.exists(manifest_path(directory.name)):
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
