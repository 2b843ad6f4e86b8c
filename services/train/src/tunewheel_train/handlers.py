"""The map of the service."""

from __future__ import annotations

from collections.abc import Sequence

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed
from tunewheel_contracts.planning.calibration import Calibration
from tunewheel_runtime.service import Lease, Service

from tunewheel_train.execution import Trainings
from tunewheel_train.runs.controls import Controls
from tunewheel_train.runs.process import WORKER
from tunewheel_train.runs.versions import Versions
from tunewheel_train.settings import Settings


def register(service: Service, settings: Settings, *, worker: Sequence[str] = WORKER) -> None:
    """Subscribe to dataset versions and to commands."""
    controls, calibration, versions = Controls(), Calibration(), Versions()
    trainings = Trainings(service.store, settings, controls, calibration, versions, worker=worker)
    # Every worker needs every command and every outcome, also from before it started: no consumer group.
    service.replay((topics.TRAIN_CONTROL,), controls.apply)
    service.check(topics.TRAIN_CONTROL)
    service.check(topics.TRAIN_STARTED)
    service.replay((topics.DATASET_VERSIONED,), versions.versioned)
    service.replay((topics.TRAIN_STARTED,), versions.began)
    service.replay((topics.TRAIN_COMPLETED,), lambda e: calibration.learn(e.data.plan, e.data.usage))

    @service.job(topics.DATASET_VERSIONED, concurrent=True)
    async def on_dataset_versioned(
        event: Envelope[DatasetVersioned], lease: Lease
    ) -> Envelope[TrainCompleted | TrainFailed]:
        async def tell(news: Event) -> None:
            await service.publish(service.new(news, cause=event))

        return service.new(await trainings.train(event.data, lease=lease, tell=tell), cause=event)
