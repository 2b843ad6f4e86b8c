"""One run from its dataset version to its adapter: everything but the bus."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import structlog
from opentelemetry.metrics import NoOpMeter
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.run import BaseModelFacts, BaseModelRef
from tunewheel_planner.calibration import Calibration
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore
from tunewheel_runtime.waiting import first_of

from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.metrics import Metrics
from tunewheel_train.progress import Failed, Located
from tunewheel_train.runs import adapters, bases, leftovers, remote_checkpoints
from tunewheel_train.runs.attempts import Attempt, Lease, Tell
from tunewheel_train.runs.controls import Controls
from tunewheel_train.runs.following import Follower, ignore
from tunewheel_train.runs.mlflow_store import MlflowStore
from tunewheel_train.runs.preparing import BEATS, prepare
from tunewheel_train.runs.process import WORKER, Last, Patience, ProcessDied, run_process
from tunewheel_train.runs.runs import Run, completed, failed, plan_run, read_dataset, unresolved_base
from tunewheel_train.runs.shortage import disk_full, is_disk_full, oom_kills, out_of_memory
from tunewheel_train.runs.slots import Slots
from tunewheel_train.runs.tracking import Tracker
from tunewheel_train.runs.training import train_once
from tunewheel_train.runs.tries import Tries
from tunewheel_train.runs.versions import Versions
from tunewheel_train.settings import Settings

log = structlog.get_logger(__name__)
Outcome = TrainCompleted | TrainFailed
Base = tuple[BaseModelRef, BaseModelFacts | None]


class Trainings:
    """Executes runs, one call at a time per run, in processes started as ``worker``."""

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
    ) -> None:
        self._metrics = metrics or Metrics(NoOpMeter("train"))
        self._store = store
        self._settings = settings
        self._controls = controls
        self._calibration = calibration or Calibration()
        self._versions = versions or Versions()
        self._worker = worker
        self._slots = Slots(settings.train_slots)
        uri = settings.mlflow_tracking_uri
        self._tracking = MlflowStore(uri.get_secret_value()) if uri is not None else None
        self._locating = asyncio.Lock()
        self._turns: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def train(
        self, event: DatasetVersioned, *, lease: Lease, tell: Tell, tries: Tries | None = None
    ) -> Outcome:
        """Train what ``event`` asks for, or find that it was trained; ``tell`` publishes what happens. With
        ``tries`` this is node 0 of several.

        Raises:
            InvalidEvent: the event does not fit the manifest it points to.
            Lease.Lost: a checkpoint was written and uploaded; nothing must be published any more.
            TransientError: the store is away.
        """
        run = await self._plan(event, lease)
        if isinstance(run, TrainFailed):
            return run
        async with self._turns[run.run_id]:  # an event may come twice, the second time while it is trained
            lease.check()
            return await self._trained(run, lease, tell, tries)

    async def follow(self, event: DatasetVersioned, *, lease: Lease, tries: Tries) -> None:
        """Take part, as a node that is not the first, in training what ``event`` asks for.

        Raises:
            InvalidEvent: the event does not fit the manifest it points to.
            Lease.Lost: this node's processes have stopped.
            TransientError: the store is away.
        """
        manifest = await self._read(event)
        # of its own: nodes may share a volume
        directory = self._settings.runs_dir / f"node-{tries.node.rank}-of-{event.dataset_id}"

        async def prepare_as(said: Job) -> Job:
            with _full_disk_fails():
                base, facts = await self._search(manifest.spec.base_model, said.base_revision, lease)
                run = plan_run(manifest, event.manifest, base, facts)
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
            await self._clean(run, run_dir)  # whoever completed it may have been killed before it did
            return completed(*found)
        busy = {run_id for run_id, turn in self._turns.items() if turn.locked()}
        await leftovers.sweep(self._store, self._settings.runs_dir, busy=busy)
        tracker = Tracker(run, self._tracking)
        attempt = Attempt(
            run, store=self._store, settings=self._settings, controls=self._controls, lease=lease, tell=tell,
            corrections=self._calibration.corrections(run.recipe.method), slots=self._slots,
            tracker=tracker, versions=self._versions, worker=self._worker, metrics=self._metrics,
            tries=tries,
        )  # fmt: skip
        try:
            with _full_disk_fails():
                result = await attempt.finish()
                lease.check()
                manifest, ref = await adapters.publish(self._store, run, run_dir / "adapter", result)
        except RunFailed as error:
            return await self._failed(run, error, attempt, tracker)
        await tracker.completed(manifest)
        await self._clean(run, run_dir)
        return completed(manifest, ref)

    async def _failed(self, run: Run, error: RunFailed, attempt: Attempt, tracker: Tracker) -> TrainFailed:
        await tracker.failed(f"{error.field}: {error.reason}")
        # A run that lost its lease is somebody else's, maybe in this very directory; one that was cancelled
        # or kept dying may be wanted again as it is.
        never_again = error.field != "(run)" or error.superseded_by is not None
        if never_again and not attempt.lease_is_lost:
            await self._forget(run)
        return failed(run, error, attempt.teller.plan if error.out_of_memory else None)

    async def _read(self, event: DatasetVersioned) -> DatasetManifest:
        try:
            return read_dataset(event, await self._store.get(event.manifest))
        except (ArtifactMissing, CorruptArtifact) as error:
            raise InvalidEvent(field="manifest", reason=str(error)) from error

    async def _plan(self, event: DatasetVersioned, lease: Lease) -> Run | TrainFailed:
        manifest = await self._read(event)
        name = manifest.spec.base_model
        try:
            with _full_disk_fails():
                pinned = await bases.pinned(self._store, manifest)
                base, facts = await self._search(name, pinned, lease)
                await bases.pin(self._store, manifest, base)
        except RunFailed as error:
            return failed(plan_run(manifest, event.manifest, unresolved_base(name)), error)
        return plan_run(manifest, event.manifest, base, facts)

    async def _search(self, name: str, revision: str | None, lease: Lease) -> Base:
        """Locate the base model, again and again while the hub does not answer, but not for ever: that a
        machine is offline for good looks the same. Raises RunFailed, TransientError, Lease.Lost."""
        settings = self._settings
        backoff = Backoff.of(settings, attempts=settings.hub_attempts)
        locating = retry(lambda: self._locate(name, revision), backoff, what="the search")
        try:
            base, _ = await first_of(locating, lease.lost.wait())
        except TransientError as error:
            raise RunFailed(field="base_model", reason=str(error)) from error
        lease.check()
        assert base is not None
        return base

    async def _locate(self, name: str, revision: str | None) -> Base:
        """Find the base model in a process of its own: converting one takes gigabytes."""
        async with self._locating:  # they share a directory
            last = await self._last_word(name, revision)
        if isinstance(last, Located):
            return BaseModelRef(name=last.name, revision=last.revision), last.facts
        if not isinstance(last, Failed):
            raise RunFailed(field="base_model", reason="the search ended early")
        if last.unreachable:
            raise TransientError(last.reason)
        if last.out_of_memory:
            raise RunFailed(field="base_model", reason="cannot be converted in this machine's memory")
        raise RunFailed(field=last.field, reason=last.reason)

    async def _last_word(self, name: str, revision: str | None) -> Last:
        """Search until a process lives to say what it found. Raises RunFailed: one that dies each time is no
        outage, and must not keep the service from other runs."""
        attempts = self._settings.train_attempts
        for attempt in range(1, attempts + 1):
            kills = oom_kills()
            try:
                return await self._locating_process(name, revision)
            except ProcessDied as error:
                log.warning("search_died", base_model=name, attempt=attempt, error=str(error))
                if error.code == -signal.SIGKILL and oom_kills() > kills:
                    return out_of_memory()
                if attempt == attempts:
                    raise RunFailed(
                        field="base_model",
                        reason=f"could not be loaded: {attempts} processes that looked for it died, the "
                        f"last: {error}",
                    ) from error
        raise AssertionError("unreachable: attempts is at least one")

    async def _locating_process(self, name: str, revision: str | None) -> Last:
        # of its own: processes that share a volume would read each other's job
        directory = self._settings.runs_dir.parent / "locating" / uuid4().hex
        job = Job(
            run_id="locate", base_model=name, base_revision=revision, cache_dir=self._settings.cache_dir,
            train_path=directory, output_dir=directory, work_dir=directory,
            alive_seconds=self._settings.silent_seconds / BEATS,
        )  # fmt: skip

        try:
            return await run_process(
                "locate", job, directory=directory, threads=self._settings.train_threads,
                stop=asyncio.Event(), stop_seconds=1.0, on_message=ignore, worker=self._worker,
                patience=Patience(self._settings.silent_seconds, self._settings.stuck_seconds),
            )  # fmt: skip
        finally:
            await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)

    async def _forget(self, run: Run) -> None:
        """Delete the checkpoints and the data of a run that failed for good; its log stays."""
        try:
            await remote_checkpoints.remove(self._store, run.checkpoints_prefix)
        except TransientError as error:  # to fail again would be to train again
            log.warning("checkpoints_not_deleted", run_id=run.run_id, error=str(error))
        await asyncio.to_thread(_remove_all_but_logs, self._settings.runs_dir / run.run_id)

    async def _clean(self, run: Run, run_dir: Path) -> None:
        await remote_checkpoints.remove(self._store, run.checkpoints_prefix)
        await asyncio.to_thread(shutil.rmtree, run_dir, ignore_errors=True)


@contextlib.contextmanager
def _full_disk_fails() -> Iterator[None]:
    """A full disk in the body, or in the object store where that is a directory, is the run's failure: no
    time mends it, and the next run may need less."""
    try:
        yield
    except (OSError, TransientError) as error:
        if not is_disk_full(error):
            raise
        raise disk_full(error) from error


def _remove_all_but_logs(run_dir: Path) -> None:
    for path in run_dir.glob("*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.suffix != ".log":
            path.unlink(missing_ok=True)
