"""The map of the train service: dataset versions become runs, commands pause, cancel or resume them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import (
    SweepProgressed,
    SweepRequested,
    TrainAction,
    TrainCompleted,
    TrainControl,
    TrainFailed,
)
from tunewheel_contracts.formats.recipe import CHAMPION
from tunewheel_planner.calibration import Calibration
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.kafka import InvalidSetting
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.service import Lease, Position, Service
from tunewheel_runtime.view import LogReader

from tunewheel_train.execution import Trainings
from tunewheel_train.launching.cluster import ClusterTrainings
from tunewheel_train.launching.jobs import Jobs, read_template
from tunewheel_train.metrics import Metrics
from tunewheel_train.runs.attempts import Tell
from tunewheel_train.runs.controls import Command, Commands, Controls, Versions
from tunewheel_train.runs.process import WORKER
from tunewheel_train.runs.starting import ChampionOf
from tunewheel_train.settings import Settings
from tunewheel_train.sweeping import Sweeps, version_of


@dataclass(frozen=True)
class Followed:
    """The state of runs from the log. Both the service and the process of a launched run have it."""

    service: Service
    settings: Settings
    commands: Commands
    controls: Controls
    calibration: Calibration
    versions: Versions
    versioned: LogReader
    """The reader of versions."""
    failures: LogReader
    """The reader of failed runs."""
    obeyed: LogReader
    """The reader of commands."""
    champion: ChampionOf

    def local(self, worker: Sequence[str]) -> tuple[Trainings, Sweeps]:
        """Return what trains runs, and what trains sweeps, in processes of this machine. Raises as
        ``Settings.require_what_trains``."""
        self.settings.require_what_trains()
        trainings = Trainings(
            self.service.store,
            self.settings,
            self.controls,
            self.calibration,
            self.versions,
            worker=worker,
            metrics=Metrics(self.service.telemetry.meter),
            champion=self.champion,
        )
        return trainings, Sweeps(self.service.store, trainings, self.controls, self.versions)


def follow(service: Service, settings: Settings) -> Followed:
    """Replay what runs depend on: versions, starts, outcomes and commands. The log is read from its
    beginning, so without a consumer group."""
    serving = service.view(topics.SERVING_DESIRED)

    async def champion(project: str) -> str | None:
        await serving.refresh()
        desired = serving.get(project)
        return desired.data.desired.model_id(CHAMPION) if desired else None

    commands, controls, versions = _commands(service, settings), Controls(), Versions()

    async def follow_command(event: Envelope[TrainControl], position: Position) -> None:
        if await commands.is_accepted(event, position):
            controls.apply(event)

    failures = service.replay((topics.TRAIN_FAILED,), versions.failed)
    obeyed = service.replay_at((topics.TRAIN_CONTROL,), follow_command)
    versioned = service.replay((topics.DATASET_VERSIONED,), versions.versioned)
    known = Followed(
        service, settings, commands, controls, Calibration(), versions, versioned, failures, obeyed, champion
    )
    service.replay((topics.TRAIN_STARTED,), known.versions.began)
    service.replay((topics.TRAIN_COMPLETED,), lambda e: known.calibration.learn(e.data.plan, e.data.usage))
    return known


def register(service: Service, settings: Settings, *, worker: Sequence[str] = WORKER) -> None:
    """Subscribe to dataset versions and to commands."""
    known = follow(service, settings)
    service.check(topics.TRAIN_STARTED)

    @service.on(topics.TRAIN_CONTROL)
    async def on_train_control(event: Envelope[TrainControl]) -> Envelope[DatasetVersioned] | None:
        await known.commands.demand_accepted(event)  # accepted commands take effect in ``follow_command``
        if event.data.action is not TrainAction.RESUME:
            return None
        await known.failures.refresh()
        # The event is published once more, unchanged: services that know it see nothing new. Training has no
        # result for it, and so trains the run.
        return known.versions.failed_version(event.project, event.data.run_id)

    if settings.train_job_template is not None:
        nodes = settings.train_nodes
        _train_in_a_cluster(known, Jobs(read_template(settings.train_job_template, nodes=nodes), nodes=nodes))
    elif settings.train_nodes > 1:
        raise InvalidSetting(
            "train_nodes",
            f"is {settings.train_nodes}, but runs are processes of this machine; set "
            "TUNEWHEEL_TRAIN_JOB_TEMPLATE, or TUNEWHEEL_TRAIN_PROCESSES for several GPUs of this machine",
        )
    else:
        _train_here(known, worker)


def telling(service: Service, cause: Envelope[DatasetVersioned] | Envelope[SweepRequested]) -> Tell:
    """Return a function that publishes events about the run, or the sweep, that ``cause`` asked for."""

    async def tell(news: Event) -> None:
        await service.publish(service.new(news, cause=cause))

    return tell


def _train_here(known: Followed, worker: Sequence[str]) -> None:
    service = known.service
    trainings, sweeps = known.local(worker)

    @service.job(topics.DATASET_VERSIONED)
    async def on_dataset_versioned(
        event: Envelope[DatasetVersioned], lease: Lease
    ) -> Envelope[TrainCompleted | TrainFailed]:
        tell = telling(service, event)
        # A newer version may wait already. Another process may have told that the attempt before failed, or
        # that a cancelled run is resumed.
        readers = known.versioned, known.failures, known.obeyed
        await asyncio.gather(*(reader.refresh() for reader in readers))
        return service.new(await trainings.train(event.data, lease=lease, tell=tell), cause=event)

    @service.job(topics.SWEEP_REQUESTED)
    async def on_sweep_requested(event: Envelope[SweepRequested], lease: Lease) -> Envelope[SweepProgressed]:
        await known.commands.demand_accepted(event)
        await asyncio.gather(known.versioned.refresh(), known.obeyed.refresh())
        ended = await sweeps.train(event.data, lease=lease, tell=telling(service, event))
        return service.new(ended, cause=event)


def _train_in_a_cluster(known: Followed, jobs: Jobs) -> None:
    service = known.service
    settings = known.settings
    trainings = ClusterTrainings(
        service.store, jobs, known.controls, known.versions, every=settings.job_poll_seconds,
        patience=settings.grace_seconds,
    )  # fmt: skip
    service.on_shutdown(jobs.close)

    @service.job(topics.DATASET_VERSIONED)
    async def on_dataset_versioned(event: Envelope[DatasetVersioned], lease: Lease) -> None:
        await trainings.train(event, lease, telling(service, event))

    @service.job(topics.SWEEP_REQUESTED)
    async def on_sweep_requested(event: Envelope[SweepRequested], lease: Lease) -> None:
        await known.commands.demand_accepted(event)
        await known.versioned.refresh()
        version_of(event.data, known.versions)  # a mistyped id costs no Job
        await trainings.train(event, lease, telling(service, event))


def _commands(service: Service, settings: Settings) -> Commands:
    async def may_control(command: Command) -> None:
        await service.access.require(command.principal, Role.OPERATOR, command.project, field="principal")

    service.doors.ask_who()
    return Commands(service.store, may_control, service.signatures.predates, Backoff.of(settings))
