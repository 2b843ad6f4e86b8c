"""One run from its dataset version to its adapter: everything but the bus."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol

import structlog
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainAction, TrainCompleted, TrainFailed
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_train import adapters, remote_checkpoints
from tunewheel_train.controls import Controls
from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.process import ProcessDied, run_process
from tunewheel_train.progress import Checkpointed, Completed, Failed, Located, Message, Stopped
from tunewheel_train.runs import Run, completed, failed, make_job, plan_run, read_dataset, unresolved_base
from tunewheel_train.settings import Settings
from tunewheel_train.telling import Teller

log = structlog.get_logger(__name__)
Outcome = TrainCompleted | TrainFailed
Tell = Callable[[Event], Awaitable[None]]


class Lease(Protocol):
    """The right to go on; ``tunewheel_runtime.service.Lease`` is one."""

    lost: asyncio.Event

    def check(self) -> None:
        """Raise when it is lost."""


class Trainings:
    """Executes runs, one call at a time per run."""

    def __init__(self, store: ObjectStore, settings: Settings, controls: Controls) -> None:
        self._store = store
        self._settings = settings
        self._controls = controls

    async def train(self, event: DatasetVersioned, *, lease: Lease, tell: Tell) -> Outcome:
        """Train what ``event`` asks for, or find that it was trained; ``tell`` publishes what happens.

        Raises:
            InvalidEvent: the event does not fit the manifest it points to.
            Lease.Lost: a checkpoint was written and uploaded; nothing must be published any more.
            TransientError: the store is away.
        """
        run = await self._plan(event)
        if isinstance(run, TrainFailed):
            return run
        found = await adapters.find(self._store, run)
        if found is not None:
            return completed(*found)
        try:
            outcome = await _Attempt(run, self._store, self._settings, self._controls, lease, tell).finish()
        except RunFailed as error:
            return failed(run, error)
        lease.check()
        run_dir = self._settings.runs_dir / run.run_id
        result = await adapters.publish(self._store, run, run_dir / "adapter", outcome)
        await self._clean(run, run_dir)
        return completed(*result)

    async def _plan(self, event: DatasetVersioned) -> Run | TrainFailed:
        try:
            content = await self._store.get(event.manifest)
        except (ArtifactMissing, CorruptArtifact) as error:
            raise InvalidEvent(field="manifest", reason=str(error)) from error
        manifest = read_dataset(event, content)
        name = manifest.spec.base_model
        try:
            base = await self._locate(name)
        except RunFailed as error:
            return failed(plan_run(manifest, event.manifest, unresolved_base(name)), error)
        return plan_run(manifest, event.manifest, base)

    async def _locate(self, name: str) -> BaseModelRef:
        """Find the base model in a process of its own: converting one takes gigabytes."""
        directory = self._settings.runs_dir.parent / "locating"
        job = Job(
            run_id="locate", base_model=name, cache_dir=self._settings.cache_dir,
            train_path=directory, output_dir=directory, work_dir=directory,
        )  # fmt: skip

        async def ignore(message: Message) -> None: ...

        try:
            last = await run_process(
                "locate", job, directory=directory, threads=self._settings.train_threads,
                stop=asyncio.Event(), stop_seconds=1.0, on_message=ignore,
            )  # fmt: skip
        except ProcessDied as error:
            raise TransientError(f"cannot look for the base model {name!r}: {error}") from error
        if isinstance(last, Located):
            return BaseModelRef(name=last.name, revision=last.revision)
        reason = last.reason if isinstance(last, Failed) else "the search ended early"
        raise RunFailed(field="base_model", reason=reason)

    async def _clean(self, run: Run, run_dir: Path) -> None:
        await remote_checkpoints.remove(self._store, run.checkpoints_prefix)
        await asyncio.to_thread(shutil.rmtree, run_dir, ignore_errors=True)


class _Attempt:
    """The processes of one run, until one of them completes it."""

    def __init__(
        self, run: Run, store: ObjectStore, settings: Settings, controls: Controls, lease: Lease, tell: Tell
    ) -> None:
        self._run = run
        self._store = store
        self._settings = settings
        self._controls = controls
        self._lease = lease
        self._teller = Teller(run, tell, settings.progress_seconds, time.monotonic)
        self._dir = settings.runs_dir / run.run_id
        self._uploads: asyncio.Task[None] | None = None
        self._pending: Path | None = None

    async def finish(self) -> Completed:
        """Start processes until the run is complete. Raises RunFailed, Lease.Lost, TransientError."""
        job = await self._prepare()
        deaths, furthest = 0, self._teller.step
        while True:
            await self._may_go_on()
            try:
                last = await self._one_process(job)
            except ProcessDied as error:
                deaths = 1 if self._teller.step > furthest else deaths + 1
                furthest = max(furthest, self._teller.step)
                log.warning("training_process_died", run_id=self._run.run_id, error=str(error))
                if deaths >= self._settings.train_attempts:
                    raise self._gave_up(error, deaths) from error
                continue
            if isinstance(last, Completed):
                return last
            if isinstance(last, Failed):
                raise RunFailed(
                    field=last.field, reason=last.reason, step=last.step, total_steps=last.total_steps
                )

    async def _prepare(self) -> Job:
        """Bring the training data and the newest checkpoint here."""
        run = self._run
        try:
            data = await self._store.get(run.train)
        except (ArtifactMissing, CorruptArtifact) as error:
            raise RunFailed(field="dataset.train", reason=f"{error}; build the dataset again") from error
        await asyncio.to_thread((self._dir / "work").mkdir, parents=True, exist_ok=True)
        train_path = self._dir / f"{run.train.sha256[:20]}.parquet"
        await asyncio.to_thread(train_path.write_bytes, data)
        await remote_checkpoints.download(self._store, run.checkpoints_prefix, self._dir / "work")
        return make_job(
            run, train_path=train_path, run_dir=self._dir, cache_dir=self._settings.cache_dir,
            dtype=self._settings.train_dtype,
        )  # fmt: skip

    async def _may_go_on(self) -> None:
        """Return when nothing speaks against training; waits out a pause."""
        run_id = self._run.run_id
        going_on = asyncio.ensure_future(self._controls.wait(run_id, lambda a: a is not TrainAction.PAUSE))
        await _either(going_on, self._lease.lost)
        self._lease.check()
        if self._controls.latest(run_id) is TrainAction.CANCEL:
            raise RunFailed(
                field="(run)", reason="was cancelled; resume it with train.control to train after all",
                step=self._teller.step, total_steps=self._teller.total_steps,
            )  # fmt: skip

    async def _one_process(self, job: Job) -> Completed | Failed | Located | Stopped:
        stop = asyncio.Event()
        watcher = asyncio.create_task(self._watch(stop), name="watch-run")
        try:
            return await run_process(
                "train", job, directory=self._dir, threads=self._settings.train_threads, stop=stop,
                stop_seconds=self._settings.stop_seconds, on_message=self._on_message,
            )  # fmt: skip
        finally:
            watcher.cancel()
            if self._uploads is not None:
                await asyncio.wait({self._uploads})

    async def _watch(self, stop: asyncio.Event) -> None:
        unwanted = asyncio.ensure_future(
            self._controls.wait(self._run.run_id, lambda a: a is not TrainAction.RESUME)
        )
        await _either(unwanted, self._lease.lost)
        stop.set()

    async def _on_message(self, message: Message) -> None:
        if isinstance(message, Checkpointed):
            self._upload_soon(Path(message.path))
        elif not self._lease.lost.is_set():
            await self._teller.tell(message)

    def _upload_soon(self, checkpoint: Path) -> None:
        """Upload beside training, always the newest: one that is overtaken while waiting is left out."""
        if self._run.recipe.method == "full" and not self._settings.upload_full_checkpoints:
            return
        self._pending = checkpoint
        if self._uploads is None or self._uploads.done():
            self._uploads = asyncio.create_task(self._upload(), name="upload-checkpoints")

    async def _upload(self) -> None:
        while (checkpoint := self._pending) is not None:
            self._pending = None
            try:
                await remote_checkpoints.upload(self._store, self._run.checkpoints_prefix, checkpoint)
            except TransientError as error:  # it is also on this disk; the next one may get through
                log.warning("checkpoint_not_uploaded", run_id=self._run.run_id, error=str(error))

    def _gave_up(self, error: ProcessDied, deaths: int) -> RunFailed:
        return RunFailed(
            field="(run)", reason=f"stopped {deaths} times without coming further: {error}",
            step=self._teller.step, total_steps=self._teller.total_steps,
        )  # fmt: skip


async def _either(task: asyncio.Future[TrainAction], lost: asyncio.Event) -> None:
    """Return when ``task`` is done or the lease is lost; the one that is not is cancelled."""
    losing = asyncio.ensure_future(lost.wait())
    try:
        await asyncio.wait({task, losing}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        task.cancel()
        losing.cancel()
