"""What the index does with each event: records, withdrawals and specs lead to new versions; an erasure
deletes versions."""

from __future__ import annotations

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_runtime.service import Service
from tunewheel_runtime.view import LogReader

from tunewheel_index.erasing import carry_out
from tunewheel_index.indexer import Indexer
from tunewheel_index.storing import IndexStore


def register(service: Service, indexer: Indexer, versions: IndexStore) -> tuple[LogReader, LogReader]:
    """Register the handlers. Return two log readers: of what people said about records (withdrawals,
    erasures, decisions), and of records. Start them in this order, because each record is checked against
    what people said."""
    said = (topics.DOCUMENT_WITHDRAWN, topics.ERASURE_REQUESTED, topics.RECORD_JUDGED)
    takebacks = service.replay_at(said, indexer.on_takeback)
    records = service.replay_at((topics.RECORD_INGESTED,), indexer.on_record, begins=indexer.begins)
    service.withhold(indexer.erasures, takebacks)

    async def take_back(project: str) -> None:
        await service.take_back(topics.INDEX_VERSIONED, project)

    @service.on(topics.ERASURE_REQUESTED)
    async def on_erasure_requested(event: Envelope[ErasureRequested]) -> Envelope[ErasureCompleted]:
        await takebacks.refresh()
        proof = await carry_out(
            event,
            indexer.erasures.asked_by(event),
            indexer=indexer,
            versions=versions,
            store=service.store,
            take_back=take_back,
        )
        return service.new(proof, cause=event)

    return takebacks, records
