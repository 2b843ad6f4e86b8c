"""Carries an erasure out: rows leave the record table and its files, what a teacher made of them goes too.

A proof says what they were part of.

What is found is written down before anything is deleted, under a name that follows from the request: a
service that dies half-way finds it again, and the proof says what there was, not what was left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from io import BytesIO

import polars as pl
import structlog
from pydantic import Field
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.fields import Frozen, Sha256, Slug
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.store import ArtifactConflict, ObjectStore

from tunewheel_curate.documents.taught import forget_taught, taught_of
from tunewheel_curate.records.erasures import Erasure
from tunewheel_curate.records.table import RecordTable
from tunewheel_curate.similarity.near_cache import NearCache

log = structlog.get_logger(__name__)

WITHOUT_ROWS = ("manifest.json", "holdout_memory.parquet")
"""What stays of a version whose rows are deleted: it holds hashes and counts, nobody's words."""


class Finding(Frozen):
    """What an erasure concerns."""

    records: int = Field(ge=0)
    """Distinct records in the table."""
    dataset_ids: tuple[Slug, ...] = ()
    """Versions of which some are part, sorted; also versions that were stored and never published."""
    lessons: tuple[Sha256, ...] = ()
    """Names of what a teacher answered about an erased document, sorted."""


async def forget(
    event: Envelope[ErasureRequested],
    erasure: Erasure,
    *,
    table: RecordTable,
    store: ObjectStore,
    delete_versions: bool,
) -> Finding:
    """Erase what ``event`` asks for (``Erasures.asked_by``) and return what was found. Repeating it is
    harmless, also after the same was published and versioned again.

    Raises:
        TransientError: another writer was faster, or the store is away.
    """
    rows = await asyncio.to_thread(table.subjects, (erasure,))
    finding = await _written_down(event, erasure, rows, store)
    if delete_versions:
        await _once(event, "versions", store, partial(_delete_versions, finding, store))
    lessons = (event.project, erasure.document_id, finding.lessons)
    await _once(event, "lessons", store, partial(forget_taught, store, *lessons))
    await asyncio.to_thread(table.erase, rows)
    await NearCache(store).forget(event.project)
    log.info("erased", erasure_id=event.data.erasure_id, **finding.model_dump())
    return finding


def _place(event: Envelope[ErasureRequested]) -> str:
    return f"erasures/{event.project}/{content_sha256(event.id.encode())[:32]}"


async def _written_down(
    event: Envelope[ErasureRequested], erasure: Erasure, rows: pl.DataFrame, store: ObjectStore
) -> Finding:
    path = f"{_place(event)}.json"
    if (earlier := await store.read(path)) is not None:
        return Finding.model_validate_json(earlier)
    record_ids = rows["record_id"].unique().sort().to_list()
    dataset_ids = await _versions_with(record_ids, erasure, store)
    lessons = await taught_of(store, event.project, erasure.document_id)
    finding = Finding(records=len(record_ids), dataset_ids=dataset_ids, lessons=lessons)
    try:
        await store.put(path, finding.model_dump_json().encode())
    except ArtifactConflict:  # another replica looked at the same moment, before or after a record arrived
        return Finding.model_validate_json(await store.read(path) or b"")
    return finding


async def _versions_with(record_ids: list[str], erasure: Erasure, store: ObjectStore) -> tuple[str, ...]:
    """Return the versions in the store that hold one of the records, or an example of the person."""
    found: list[str] = []
    for path in await store.list("datasets"):
        if not path.endswith("/manifest.json"):
            continue
        manifest = DatasetManifest.model_validate_json(await store.read(path) or b"")
        if manifest.project == erasure.project and await _holds(manifest, record_ids, erasure, store):
            found.append(manifest.dataset_id)
    return tuple(sorted(found))


async def _holds(
    manifest: DatasetManifest, record_ids: list[str], erasure: Erasure, store: ObjectStore
) -> bool:
    # Read by path: the rows of a version may have been deleted by an earlier erasure.
    lineage = await store.read(manifest.lineage.path) if manifest.lineage else None
    if lineage is not None:
        used = pl.read_parquet(BytesIO(lineage)).filter(pl.col("example_id").is_not_null())
        if used["record_id"].is_in(record_ids).any():
            return True
    for ref in (manifest.preferences, manifest.negatives):
        rows = await store.read(ref.path) if ref is not None else None
        if rows is not None and pl.read_parquet(BytesIO(rows))["record_id"].is_in(record_ids).any():
            return True
    for ref in (manifest.train, manifest.holdout):
        rows = await store.read(ref.path) if erasure.customer is not None else None
        if rows is None:
            continue
        if (pl.read_parquet(BytesIO(rows), columns=["group"])["group"] == erasure.customer).any():
            return True
    return False


async def _once(
    event: Envelope[ErasureRequested], what: str, store: ObjectStore, delete: Callable[[], Awaitable[None]]
) -> None:
    """Delete ``what``, once: the same may have been published since, and has the same name."""
    done = f"{_place(event)}.{what}-deleted"
    if await store.exists(done):
        return
    await delete()
    await store.put(done, b"")


async def _delete_versions(finding: Finding, store: ObjectStore) -> None:
    for dataset_id in finding.dataset_ids:
        await _delete_rows(dataset_id, store)


async def _delete_rows(dataset_id: str, store: ObjectStore) -> None:
    prefix = f"datasets/{dataset_id}/"
    paths = await store.list(prefix.rstrip("/"))
    await store.delete([path for path in paths if path.removeprefix(prefix) not in WITHOUT_ROWS])
    log.warning("dataset_rows_deleted", dataset_id=dataset_id)
