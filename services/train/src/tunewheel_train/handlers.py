"""The map of the service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainCompleted, TrainControl, TrainFailed
from tunewheel_planner.calibration import Calibration
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.partitions import committed_offsets
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.service import Lease, Position, Service

from tunewheel_train.execution import Trainings
from tunewheel_train.runs.commands import Commands
from tunewheel_train.runs.controls import Controls
from tunewheel_train.runs.process import WORKER
from tunewheel_train.runs.versions import Versions
from tunewheel_train.settings import Settings


def register(service: Service, settings: Settings, *, worker: Sequence[str] = WORKER) -> None:
    """Subscribe to dataset versions and to commands."""
    controls, calibration, versions = Controls(), Calibration(), Versions()
    trainings = Trainings(service.store, settings, controls, calibration, versions, worker=worker)
    # Every worker needs every command and every outcome, also from before it started: no consumer group.
    commands = _commands(service, settings)

    async def follow_command(event: Envelope[TrainControl], position: Position) -> None:
        if await commands.is_accepted(event, position):
            controls.apply(event)

    service.on_startup(commands.begin)
    service.replay_at((topics.TRAIN_CONTROL,), follow_command)
    service.check(topics.TRAIN_STARTED)
    service.replay((topics.DATASET_VERSIONED,), versions.versioned)
    service.replay((topics.TRAIN_STARTED,), versions.began)
    service.replay((topics.TRAIN_COMPLETED,), lambda e: calibration.learn(e.data.plan, e.data.usage))

    @service.on(topics.TRAIN_CONTROL)
    async def on_train_control(event: Envelope[TrainControl]) -> None:
        await commands.demand_accepted(event)  # those that count are the replay's matter

    @service.job(topics.DATASET_VERSIONED, concurrent=True)
    async def on_dataset_versioned(
        event: Envelope[DatasetVersioned], lease: Lease
    ) -> Envelope[TrainCompleted | TrainFailed]:
        async def tell(news: Event) -> None:
            await service.publish(service.new(news, cause=event))

        return service.new(await trainings.train(event.data, lease=lease, tell=tell), cause=event)


def _commands(service: Service, settings: Settings) -> Commands:
    async def may_control(command: TrainControl) -> None:
        await service.access.require(command.principal, Role.OPERATOR, command.project, field="principal")

    topic = topics.TRAIN_CONTROL
    (group,) = topic.groups_of(service.name)

    async def handled() -> Mapping[int, int]:
        return await committed_offsets(client_options(settings), topic.name, group=group)

    service.ask_who()
    backoff = Backoff(
        settings.retry_attempts, settings.retry_first_delay_seconds, settings.retry_max_delay_seconds
    )
    return Commands(service.store, may_control, handled, backoff)
