"""Carries out an erasure on what ingest holds: uploaded files, and the dead letters of all services."""

from __future__ import annotations

import structlog
from tunewheel_contracts.erasures import Erasure, place_of, proof_of
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.topics import ERASED_LETTERS
from tunewheel_runtime.erased_letters import ErasedLetters
from tunewheel_runtime.service import Service

from tunewheel_ingest.documents import Documents

log = structlog.get_logger(__name__)
HOLDER = "ingest"


async def carry_out(
    event: Envelope[ErasureRequested], erasure: Erasure, *, service: Service, documents: Documents
) -> ErasureCompleted:
    """Delete the files and dead letters that ``erasure`` takes, and return the proof.

    The proof gives the number found when the request was handled for the first time.

    Raises:
        InvalidEvent: Kafka does not let ingest delete dead letters.
        TransientError: the broker or the store is away.
    """
    files = await documents.stored(event.project, erasure.subject, until=erasure.until)
    letters = ErasedLetters(service.settings, service.publisher, ERASED_LETTERS)
    found = str(len(files) + await letters.find(erasure)).encode()
    first = await service.store.first(f"{place_of(event.project, event.id)}.{HOLDER}", found)
    await service.store.delete(files)
    await letters.remove(erasure)
    log.info("erased", erasure_id=event.data.erasure_id, files=len(files), found=int(found))
    return proof_of(event.data, holder=HOLDER, erased_by=service.name, records=int(first))
