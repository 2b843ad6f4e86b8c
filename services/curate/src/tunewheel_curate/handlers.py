"""The map of curate: records into the table, requests into dataset versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRequested, RecordIngested
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_contracts.events.turns import LabelsRequested, TurnDecided
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested
from tunewheel_runtime.service import Delivery, Lease, Service

from tunewheel_curate.curation import Curation
from tunewheel_curate.labelling.reminders import Reminders
from tunewheel_curate.labelling.requests import LabelsWanted


def register(
    service: Service, curation: Curation, labels: LabelsWanted, reminders: Reminders, *, append_batch: int
) -> None:
    """Attach the handlers."""
    service.doors.ask_who()

    @service.on_batch(topics.RECORD_INGESTED, max_records=append_batch)
    async def on_record_ingested(deliveries: Sequence[Delivery[RecordIngested]]) -> None:
        await curation.keep(deliveries)

    @service.on(topics.DRIFT_DETECTED)
    async def on_drift_detected(event: Envelope[DriftDetected]) -> Envelope[DatasetRequested] | None:
        return await curation.turn_for(event)

    @service.job(topics.LABELS_REQUESTED)
    async def on_labels_requested(event: Envelope[LabelsRequested], lease: Lease) -> None:
        await labels.pass_on(event, lease)

    @service.job(topics.TURN_DECIDED)
    async def on_turn_decided(event: Envelope[TurnDecided], lease: Lease) -> None:
        await reminders.pass_on(event, lease)

    @service.on(topics.DOCUMENT_WITHDRAWN)
    async def on_document_withdrawn(
        event: Envelope[DocumentWithdrawn],
    ) -> Envelope[DatasetRequested] | None:
        return await curation.withdraw(event)

    @service.on(topics.ERASURE_REQUESTED)
    async def on_erasure_requested(event: Envelope[ErasureRequested]) -> list[Envelope[Any]]:
        return await curation.erase(event)

    service.check(topics.DATASET_REJECTED)
    service.check(topics.RECORD_JUDGED)

    @service.job(topics.DATASET_REQUESTED, in_order=True)
    async def on_dataset_requested(event: Envelope[DatasetRequested], lease: Lease) -> Envelope[Any] | None:
        return await curation.answer(event, lease)
