"""Starts the processes of one run, one after the other, until one completes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import structlog
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Event
from tunewheel_contracts.events.training import TrainAction
from tunewheel_contracts.formats.run import Adjustment
from tunewheel_planner.calibration import Correction
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.slots import Slots
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.waiting import first_of

from tunewheel_train.errors import RunFailed, superseded
from tunewheel_train.job import Job
from tunewheel_train.metrics import Metrics
from tunewheel_train.progress import Checkpointed, Completed, Failed, Message, Started
from tunewheel_train.runs import remote_checkpoints
from tunewheel_train.runs.controls import Controls, Versions
from tunewheel_train.runs.process import WORKER, Last, ProcessDied, train_once
from tunewheel_train.runs.runs import Result, Run
from tunewheel_train.runs.slots import ALONE
from tunewheel_train.runs.starting import prepare
from tunewheel_train.runs.telling import Teller
from tunewheel_train.runs.tracking import Tracker
from tunewheel_train.runs.tries import Tries
from tunewheel_train.settings import Settings
from tunewheel_train.shortage import next_rung

log = structlog.get_logger(__name__)
Tell = Callable[[Event], Awaitable[None]]


class Attempt:
    """One worker's attempt at one run. ``corrections`` adjust the plan's estimates, as earlier runs showed.
    With ``tries`` this is node 0 of several nodes, and leads them."""

    def __init__(
        self,
        run: Run,
        *,
        store: ObjectStore,
        settings: Settings,
        controls: Controls,
        lease: Lease,
        tell: Tell,
        corrections: Mapping[str, Correction],
        slots: Slots,
        tracker: Tracker,
        versions: Versions,
        metrics: Metrics,
        worker: Sequence[str] = WORKER,
        tries: Tries | None = None,
    ) -> None:
        self._run = run
        self._store = store
        self._settings = settings
        self._controls = controls
        self._slots = slots
        self._tracker = tracker
        self._versions = versions
        self._metrics = metrics
        self._began = False
        self._job: Job | None = None
        """The job, with the data that was downloaded for the run; None: the run has had no machine yet."""
        self._worker = worker
        self._tries = tries
        self._lease = lease
        self._corrections = corrections
        self.teller = Teller(run, tell, settings.progress_seconds, time.monotonic)
        self._dir = settings.runs_dir / run.run_id
        self._uploads: asyncio.Task[None] | None = None
        self._stopped_at: float | None = None
        """Monotonic seconds at which the latest process was told to stop; None: it was not."""
        self._pending: Path | None = None
        self._started_at: float | None = None
        self.seconds = 0.0
        """Seconds in which the processes trained, without their starts."""

    @property
    def _is_resumed(self) -> bool:
        return self._controls.is_resumed(self._run.project, self._run.run_id)

    @property
    def lease_is_lost(self) -> bool:
        return self._lease.lost.is_set()

    async def finish(self) -> Result:
        """Start processes until the run is complete. Raises RunFailed, Lease.Lost, TransientError."""
        self._demand_newest()
        adjustments: list[Adjustment] = []
        deaths, furthest = 0, self.teller.step
        while True:
            await self._may_go_on()
            try:
                last = await self._one_process()
            except ProcessDied as error:
                deaths = 1 if self.teller.step > furthest else deaths + 1
                furthest = max(furthest, self.teller.step)
                log.warning("training_process_died", run_id=self._run.run_id, error=str(error))
                self._metrics.add("processes.died")
                if deaths >= self._settings.train_attempts:
                    raise self._gave_up(error, deaths) from error
                continue
            job = self._job
            if job is None:
                continue
            if isinstance(last, Completed):
                self._metrics.saw(last, run_id=self._run.run_id, project=self._run.project)
                return Result(last, job.recipe, self.teller.plan, self.teller.total_steps, tuple(adjustments))
            if isinstance(last, Failed) and last.unreachable:
                raise TransientError(last.reason)  # ``Bases.search`` limits how often this is retried
            if isinstance(last, Failed):
                self._job, adjustment = self._lower(job, last)
                adjustments.append(adjustment)
                if adjustment.field == "method":  # another machine may have been further by this method
                    await self._download(self._job)

    def _lower(self, job: Job, last: Failed) -> tuple[Job, Adjustment]:
        """Return the job of the next rung of the ladder, if the process had too little memory. Raises
        RunFailed for any other failure."""
        rung = next_rung(job, self.teller.plan, after_step=self.teller.step) if last.out_of_memory else None
        if rung is None:
            raise RunFailed(
                field=last.field, reason=last.reason, step=last.step or self.teller.step,
                total_steps=last.total_steps or self.teller.total_steps, record_ids=last.record_ids,
                out_of_memory=last.out_of_memory,
            )  # fmt: skip
        log.warning("out_of_memory", run_id=self._run.run_id, adjustment=rung[1].model_dump())
        return rung

    async def _prepare(self) -> Job:
        """Download the training data, the adapter to continue from and the newest checkpoint."""
        job = await prepare(self._run, self._store, self._settings, self._dir, self._corrections)
        await self._download(job)
        if self._run.attempt == 1 or not self._is_resumed:
            return job
        # the person knows how far it came, and wants it nevertheless
        freed = self._run.recipe.model_copy(update={"max_hours": None, "max_dollars": None})
        return job.model_copy(update={"recipe": freed})

    async def _download(self, job: Job) -> None:
        prefix, method = self._run.checkpoints_prefix, job.recipe.method
        await remote_checkpoints.download(self._store, prefix, job.work_dir, method)

    async def _may_go_on(self) -> None:
        """Wait while the run is paused. Raises RunFailed if it is cancelled or superseded."""
        named = self._run.project, self._run.commanded_as
        going_on = self._controls.wait(*named, lambda a: a is not TrainAction.PAUSE)
        await first_of(going_on, self._lease.lost.wait(), self._versions.wait(self._is_superseded))
        self._lease.check()
        self._demand_newest()
        if self._controls.latest(*named) is TrainAction.CANCEL:
            raise RunFailed(
                field="(run)", reason="was cancelled; `tunewheel run resume` trains it after all",
                step=self.teller.step, total_steps=self.teller.total_steps,
            )  # fmt: skip

    def _superseding(self) -> str | None:
        """Return the newer version that supersedes this run's; None: there is none, the run has begun, a
        person resumed it, or a sweep names its version."""
        if self._began or self._run.tried or self._is_resumed:
            return None
        return self._versions.superseding(self._run.project, self._run.dataset_id, self._controls)

    def _is_superseded(self) -> bool:
        return self._superseding() is not None

    def _demand_newest(self) -> None:
        if (newer := self._superseding()) is not None:
            raise superseded(newer)

    async def _one_process(self) -> Last | None:
        """Run one process once this machine has a slot; None: the run was stopped while it waited. Nothing is
        downloaded for a run that waits."""
        run, stop, self._stopped_at = self._run, asyncio.Event(), None
        watcher = asyncio.create_task(self._watch(stop), name="watch-run")
        try:
            async with self._slots.hold(
                run.project, stop, job=run.run_id, priority=run.recipe.priority, background=bool(run.tried)
            ) as slot:
                if stop.is_set() or slot is None or self._is_superseded():
                    return None
                if self._job is None:
                    self._job, _ = await first_of(self._prepare(), stop.wait())
                if self._job is None or stop.is_set():
                    return None
                self._began = True
                return await self._run_process(self._job, slot, stop)
        finally:
            watcher.cancel()
            self._metrics.ended(self._run.run_id)
            await self._finish_upload()

    async def _run_process(self, job: Job, slot: int, stop: asyncio.Event) -> Last | None:
        tries = self._tries

        async def train() -> Last:
            return await train_once(
                job, self._settings, directory=self._dir, stop=stop, on_message=self._on_message,
                worker=self._worker, slot=slot, node=tries.node if tries else ALONE,
            )  # fmt: skip

        try:
            return await (tries.lead(job, stop, train) if tries else train())
        finally:
            if self._started_at is not None:
                self.seconds += time.monotonic() - self._started_at
                self._started_at = None

    async def _watch(self, stop: asyncio.Event) -> None:
        run = self._run
        unwanted = self._controls.wait(run.project, run.commanded_as, lambda a: a is not TrainAction.RESUME)
        await first_of(unwanted, self._lease.lost.wait(), self._versions.wait(self._is_superseded))
        self._stopped_at = time.monotonic()
        stop.set()

    async def _on_message(self, message: Message) -> None:
        if isinstance(message, Started):
            self._started_at = time.monotonic()
        if isinstance(message, Checkpointed):
            self._upload_soon(Path(message.path))
        elif not self._lease.lost.is_set():
            self._tracker.saw(message)
            self._metrics.saw(message, run_id=self._run.run_id, project=self._run.project)
            await self.teller.tell(message)

    def _upload_soon(self, checkpoint: Path) -> None:
        """Upload the checkpoint while training goes on. If a newer one comes before its upload begins, it is
        skipped."""
        if not self._run.recipe.method.traits.adapter and not self._settings.upload_full_checkpoints:
            return
        self._pending = checkpoint
        if self._uploads is None or self._uploads.done():
            self._uploads = asyncio.create_task(self._upload(), name="upload-checkpoints")

    async def _finish_upload(self) -> None:
        """Wait for the running upload. If the lease is lost, as when this process must end, wait no longer
        than the rest of ``stop_seconds``."""
        if self._uploads is None:
            return
        began = self._stopped_at if self._lease.lost.is_set() else None
        if began is None:
            lost = asyncio.ensure_future(self._lease.lost.wait())
            await asyncio.wait({self._uploads, lost}, return_when=asyncio.FIRST_COMPLETED)
            lost.cancel()
            began = time.monotonic()
        patience = max(0.0, began + self._settings.stop_seconds - time.monotonic())
        _, late = await asyncio.wait({self._uploads}, timeout=patience)
        for upload in late:
            log.warning("checkpoint_not_uploaded", run_id=self._run.run_id, error="took too long at the stop")
            upload.cancel()
            await asyncio.wait({upload})

    async def _upload(self) -> None:
        while (checkpoint := self._pending) is not None:
            self._pending = None
            try:
                await remote_checkpoints.upload(
                    self._store, self._run.checkpoints_prefix, checkpoint,
                    keep=self._run.recipe.keep_checkpoints,
                )  # fmt: skip
            except TransientError as error:  # the checkpoint is also on this disk; a later upload may succeed
                log.warning("checkpoint_not_uploaded", run_id=self._run.run_id, error=str(error))

    def _gave_up(self, error: ProcessDied, deaths: int) -> RunFailed:
        return RunFailed(
            field="(run)", reason=f"stopped {deaths} times without progress: {error}",
            step=self.teller.step, total_steps=self.teller.total_steps,
        )  # fmt: skip
