"""Carries an erasure out: what was erased is in no newer version, and the files of those that hold it go."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext

import structlog
from tunewheel_contracts.erasures import Erasure, place_of, proof_of
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_embedding.endpoint import EmbeddingRefused
from tunewheel_runtime.store import ObjectStore

from tunewheel_index.indexer import Indexer
from tunewheel_index.storing import IndexStore

log = structlog.get_logger(__name__)
HOLDER = "index"


async def carry_out(
    event: Envelope[ErasureRequested],
    erasure: Erasure,
    *,
    indexer: Indexer,
    versions: IndexStore,
    store: ObjectStore,
    take_back: Callable[[str], Awaitable[None]],
) -> ErasureCompleted:
    """Build a version without what ``erasure`` takes, which ``indexer`` knows already; delete the files of
    every version that holds it, and return the proof. Repeating it is harmless.

    ``take_back`` tells everybody that a project has no index any more.

    Raises:
        TransientError: the broker or the store is away; call again.
    """
    name, is_built = event.project, True
    try:
        project = await indexer.settle(name)
    except (InvalidSpec, EmbeddingRefused) as error:
        # no newer version can be had: that nobody can search is better than that everybody finds it
        log.error("erased_without_a_newer_version", project=name, error=str(error))
        project, is_built = indexer.projects.get(name), False
    async with project.building if project is not None else nullcontext():
        newest = project.newest if project is not None else None
        standing = project.documents.standing(erasure.subject) if project is not None else []
        held = await versions.holding(name, erasure.subject, standing={one.record_id for one in standing})
        if newest is not None and is_built:
            held.pop(newest.index_id, None)
        records = set[str]().union(*held.values())
        # written down before anything is deleted: who does it again says the same
        told = await store.first(f"{place_of(name, event.id)}.{HOLDER}", str(len(records)).encode())
        if project is not None and newest is not None and newest.index_id in held:
            # before its files go: who does it again would not know that gateways have it in memory
            await take_back(name)
            project.newest = project.index = None
        kept = newest.versions if newest is not None and is_built else None
        await versions.erase(name, held, versions=kept)
    log.info("erased", erasure_id=event.data.erasure_id, records=len(records), index_ids=sorted(held))
    return proof_of(event.data, holder=HOLDER, erased_by=HOLDER, records=int(told))
