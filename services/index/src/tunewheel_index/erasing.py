"""Carries out an erasure: names a version without the erased document, and deletes all versions that hold it.

The new version is the rest of the newest one, so neither an endpoint nor the log is needed.
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
    """Name a version without the records that ``erasure`` takes, delete every version that holds one of them,
    and return the proof. Repeating it is harmless.

    ``indexer`` must have read the erasure already. ``take_back`` publishes that a project has no index.

    Raises:
        TransientError: the broker or the store is away; call again.
        LeadershipLost: another process is the active one now.
    """
    name, subject = event.project, erasure.subject
    project = indexer.projects.get(name)
    async with project.writing if project is not None else nullcontext():
        listed = await _listed(project, versions)
        standing = _standing(project, subject, listed or ())
        held = await versions.holding(name, subject, standing=standing)
        records = set[str]().union(*held.values())
        # stored before anything is deleted, so that a repetition reports the same number
        counted = await store.first(f"{place_of(name, event.id)}.{HOLDER}", str(len(records)).encode())
        if project is not None and not await _is_taken_out(project, subject, indexer, listed, held):
            # No search works until the log is read again. That is better than a search that finds erased
            # text. Publish it before deleting files: after a crash in between, the repetition could not tell
            # that gateways still hold the version in memory.
            log.error("newest_version_deleted", project=name)
            await take_back(name)
            project.newest = project.index = None
            indexer.touch(project)
        newest = project.newest if project is not None else None
        gone = [index_id for index_id in held if newest is None or index_id != newest.index_id]
        await versions.erase(name, gone, versions=newest.versions if newest is not None else None)
    log.info("erased", erasure_id=event.data.erasure_id, records=len(records), index_ids=sorted(gone))
    return proof_of(event.data, holder=HOLDER, erased_by=HOLDER, records=int(counted))


async def _listed(project: Project | None, versions: IndexStore) -> Sequence[Version] | None:
    """Return the document versions that the newest index version lists. None: there is no list to read."""
    if project is None or project.newest is None:
        return None
    try:
        return await versions.versions(project.newest)
    except (ArtifactMissing, CorruptArtifact) as error:
        log.warning("document_versions_unreadable", project=project.name, error=str(error))
        return None


def _standing(project: Project | None, subject: str, listed: Sequence[Version]) -> set[str]:
    """Return the record ids of a document that are neither withdrawn nor erased."""
    if project is None:
        return set()
    project.documents.take_back(subject)
    takes = project.documents.takes
    named = {one.record_id for one in listed if one.document_id == subject and not takes(one)}
    return named | project.documents.standing(subject)


async def _is_taken_out(
    project: Project,
    subject: str,
    indexer: Indexer,
    listed: Sequence[Version] | None,
    held: Collection[str],
) -> bool:
    """Make sure that neither the newest version nor its table of document versions holds a withdrawn or
    erased version of the document. False: they cannot be read."""
    project.erased.append(subject)
    if project.newest is None:
        return True
    if listed is None:
        return False
    takes = project.documents.takes
    if project.newest.index_id not in held and not any(
        one.document_id == subject and takes(one) for one in listed
    ):
        return True
    if await indexer.builder.open_newest(project) is None:
        return False
    await indexer.builder.take_out(project, subject, listed)
    return True
