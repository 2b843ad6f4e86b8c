"""The process that trains one launched run or sweep: ``tunewheel-train-run NAME``, the container of a Job.

It downloads data, base model and checkpoints from the object store, uploads its own checkpoints, publishes
progress as the service would, and writes the outcome. On SIGTERM it writes a checkpoint after the current
step and exits with 75; the next pod continues from the checkpoint. With ``TUNEWHEEL_TRAIN_NODES`` it is one
of several pods that train the run together (``runs/tries.py``). It has no consumer group and opens only the
health port. No other pod needs anything from its disk.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

import structlog
from tunewheel_contracts.errors import InvalidEvent, TransientError, TunewheelError
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import SweepRequested, TrainCompleted
from tunewheel_runtime.jobs import Lease, LeaseLost
from tunewheel_runtime.process import run_service
from tunewheel_runtime.retry import Backoff, retry
from tunewheel_runtime.service import Service

from tunewheel_train.execution import Trainings
from tunewheel_train.handlers import follow, telling
from tunewheel_train.launching.jobs import EXIT_STOPPED
from tunewheel_train.launching.launch import Asked, Launch, Outcome, Refused, read_launch
from tunewheel_train.runs.process import WORKER
from tunewheel_train.runs.slots import ALONE, Node, node_of
from tunewheel_train.runs.tries import Tries
from tunewheel_train.settings import Settings
from tunewheel_train.sweeping import Sweeps

log = structlog.get_logger(__name__)


class NoSuchLaunch(TunewheelError):
    """The store has no launch of that name: this is another store, or the run was not launched."""


class OneRun:
    """Trains the launch ``name`` and then stops ``service``. Node 0 leads; other nodes take part."""

    def __init__(
        self,
        service: Service,
        settings: Settings,
        name: str,
        trainings: Trainings,
        sweeps: Sweeps,
        *,
        node: Node = ALONE,
    ) -> None:
        self._service = service
        self._name = name
        self._trainings = trainings
        self._sweeps = sweeps
        self._node = node
        self._every = settings.job_poll_seconds
        self._tries: Tries | None = None
        self._lease = Lease(("dataset.versioned", 0))
        self._backoff = Backoff.of(settings)
        self._task: asyncio.Task[None] | None = None
        self.ended = False
        """Whether the outcome is written."""

    async def begin(self) -> None:
        self._task = asyncio.create_task(self._run(), name=self._name)

    async def stop(self) -> None:
        """Let the training process write a checkpoint, and upload it."""
        self._lease.lose("this pod was told to end")
        if self._task is not None:
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        try:
            await retry(self._once, self._backoff, what=self._name)
            self.ended = True
        except (LeaseLost, TransientError) as error:  # another pod goes on; this is no failed attempt
            log.warning("run_stopped", launch=self._name, reason=str(error))
        except Exception as error:
            self._service.fail(error)
        self._service.stop()

    async def _once(self) -> None:
        store = self._service.store
        launch = await read_launch(store, self._name)
        if launch is None:
            raise NoSuchLaunch(
                f"launches/{self._name}/event.json is not in {store.url}; set TUNEWHEEL_STORE_URL to the "
                "store of the train service"
            )
        if await launch.outcome(store) is None:
            if self._node.count > 1:
                self._tries = self._tries or Tries(store, launch.prefix, self._node, every=self._every)
            if self._tries is not None and self._node.rank > 0:
                await self._follow(launch, self._tries)
            else:
                await launch.end(store, await self._outcome(launch, self._tries))

    async def _follow(self, launch: Launch, tries: Tries) -> None:
        assert isinstance(launch.event.data, DatasetVersioned), "a sweep's Job has one node"
        try:
            await self._trainings.follow(launch.event.data, lease=self._lease, tries=tries)
        except InvalidEvent as error:  # node 0 decides whether this is the outcome
            raise TransientError(str(error)) from error

    async def _outcome(self, launch: Launch, tries: Tries | None) -> Outcome:
        try:
            return await self._trained(launch.event, tries)
        except InvalidEvent as error:
            return Outcome(refused=Refused(field=error.field, reason=error.reason))

    async def _trained(self, event: Asked, tries: Tries | None) -> Outcome:
        tell, asked = telling(self._service, event), event.data
        if isinstance(asked, SweepRequested):
            swept = await self._sweeps.train(asked, lease=self._lease, tell=tell)
            self._lease.check()
            return Outcome(swept=swept)
        told = await self._trainings.train(asked, lease=self._lease, tell=tell, tries=tries)
        self._lease.check()
        return Outcome(completed=told) if isinstance(told, TrainCompleted) else Outcome(failed=told)


def make_app(settings: Settings, name: str, *, worker: Sequence[str] = WORKER) -> tuple[Service, OneRun]:
    """Assemble the process that trains the launch ``name``, without starting it."""
    node = node_of(settings.train_nodes, os.environ)
    service = Service("train", settings)
    run = OneRun(service, settings, name, *follow(service, settings).local(worker), node=node)
    service.on_startup(run.begin)
    service.on_shutdown(run.stop)
    return service, run


def main() -> None:
    """Train the launch that the first argument names. Exit codes: 0 the outcome is written; 1 an error, to be
    retried; 2 a wrong argument or setting; 75 stopped before the run ended."""
    if len(sys.argv) != 2:
        print("usage: tunewheel-train-run NAME", file=sys.stderr)
        sys.exit(2)
    made: list[OneRun] = []

    def make(settings: Settings) -> Service:
        service, run = make_app(settings, sys.argv[1])
        made.append(run)
        return service

    try:
        run_service("train", Settings, make)
    except SystemExit as end:
        if not end.code and made and not made[0].ended:
            sys.exit(EXIT_STOPPED)
        raise


if __name__ == "__main__":
    main()
