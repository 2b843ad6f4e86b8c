"""Carries an erasure out: what was erased is in no newer version, and the files of those that hold it go.

Neither an endpoint nor the log is asked: the rest of the newest version is a version.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import nullcontext

import structlog
from tunewheel_contracts.erasures import Erasure, place_of, proof_of
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_runtime.store import ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_index.documents import Version
from tunewheel_index.indexer import Indexer
from tunewheel_index.project import Project
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
    """Name a version without what ``erasure`` takes, which ``indexer`` knows already; delete the files of
    every version that holds it, and return the proof. Repeating it is harmless.

    ``take_back`` tells everybody that a project has no index any more.

    Raises:
        TransientError: the broker or the store is away; call again.
        LeadershipLost: another process is the active one now.
    """
    name, subject = event.project, erasure.subject
    project = indexer.projects.get(name)
    async with project.writing if project is not None else nullcontext():
        known = await _known(project, versions)
        standing = _standing(project, subject, known or ())
        held = await versions.holding(name, subject, standing=standing)
        records = set[str]().union(*held.values())
        # written down before anything is deleted: who does it again says the same
        told = await store.first(f"{place_of(name, event.id)}.{HOLDER}", str(len(records)).encode())
        if project is not None and not await _is_taken_out(project, subject, indexer, known, held):
            # nobody can search until the log was read: better than that everybody finds what was erased.
            # Before its files go: who does it again would not know that gateways have it in memory
            log.error("newest_version_deleted", project=name)
            await take_back(name)
            project.newest = project.index = None
            indexer.touch(project)
        newest = project.newest if project is not None else None
        gone = [index_id for index_id in held if newest is None or index_id != newest.index_id]
        await versions.erase(name, gone, versions=newest.versions if newest is not None else None)
    log.info("erased", erasure_id=event.data.erasure_id, records=len(records), index_ids=sorted(gone))
    return proof_of(event.data, holder=HOLDER, erased_by=HOLDER, records=int(told))


async def _known(project: Project | None, versions: IndexStore) -> Sequence[Version] | None:
    """Return the document versions that the newest index version names; None: nobody can read them."""
    if project is None or project.newest is None:
        return None
    try:
        return await versions.versions(project.newest)
    except (ArtifactMissing, CorruptArtifact) as error:
        log.warning("document_versions_unreadable", project=project.name, error=str(error))
        return None


def _standing(project: Project | None, subject: str, known: Sequence[Version]) -> set[str]:
    """Return the records of a document that nobody took back."""
    if project is None:
        return set()
    project.documents.take_back(subject)
    takes = project.documents.takes
    named = {one.record_id for one in known if one.document_id == subject and not takes(one)}
    return named | project.documents.standing(subject)


async def _is_taken_out(
    project: Project,
    subject: str,
    indexer: Indexer,
    known: Sequence[Version] | None,
    held: Collection[str],
) -> bool:
    """Have the newest version, and its table of document versions, hold nothing that was taken back of a
    document. False: they cannot be read."""
    project.erased.append(subject)
    if project.newest is None:
        return True
    if known is None:
        return False
    takes = project.documents.takes
    if project.newest.index_id not in held and not any(
        one.document_id == subject and takes(one) for one in known
    ):
        return True
    if await indexer.builder.open_newest(project) is None:
        return False
    await indexer.builder.take_out(project, subject, known)
    return True
