"""Carries out an erasure: deletes rows from the record table and its files, and a teacher's answers about
them.

The finding (which records there were, and which versions hold them) is stored before anything is deleted,
under a name that follows from the request. A service that dies half-way finds it again. So the proof always
says what there was before, not what was left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from io import BytesIO
from itertools import groupby

import polars as pl
import structlog
from tunewheel_contracts.erasures import Erasure, place_of
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, decode_data
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.fields import ArtifactRef, Frozen, Slug
from tunewheel_contracts.formats.erasure import ErasureFinding
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_runtime.store import ObjectStore

from tunewheel_curate.documents.teaching import forget_taught, taught_of
from tunewheel_curate.outcomes import OutcomeCache
from tunewheel_curate.quarantine.listing import forget_quarantined
from tunewheel_curate.records.table import RecordTable
from tunewheel_curate.similarity.near_cache import NearCache

log = structlog.get_logger(__name__)

MANIFEST = "manifest.json"
WITHOUT_ROWS = (MANIFEST, "holdout_memory.parquet")
"""The files of a version that stay when its rows are deleted: they hold hashes and counts, and no texts."""
Warn = Callable[[str, str | None], None]
"""``Health.warn``."""


class Owner(Frozen):
    """The part of a manifest that an erasure needs. It can be read where the rest is of a newer release."""

    project: Slug


async def forget(
    event: Envelope[ErasureRequested],
    erasure: Erasure,
    *,
    table: RecordTable,
    store: ObjectStore,
    names: Pseudonyms,
    deletes: Callable[[str], bool],
    warn: Warn,
) -> ErasureFinding:
    """Erase the records that ``event`` asks for (``Erasures.asked_by``), and return what was found.

    ``names`` gives the pseudonym of the person in versions. ``deletes`` says which versions lose their rows.
    ``warn`` is told of damaged versions: where the manifest is damaged the rows are searched without it, and
    where the rows are damaged the version counts as one that holds the records. Repeating an erasure is
    harmless, even after the same records were published and versioned again.

    Raises:
        TransientError: another writer was faster, or the store is away.
    """
    rows = await asyncio.to_thread(table.subjects, (erasure,))
    finding = await _written_down(event, erasure, rows, store, names, warn)
    table.remember(event.project, finding.record_ids, erasure.until)
    rows = await asyncio.to_thread(table.subjects, (erasure,))
    if gone := [name for name in finding.dataset_ids if deletes(name)]:
        await _once(event, "versions", store, partial(_delete_versions, gone, store))
    lessons = (event.project, erasure.subject, finding.lessons)
    await _once(event, "lessons", store, partial(forget_taught, store, *lessons))
    await asyncio.to_thread(table.erase, rows)
    await NearCache(store).forget(event.project)
    await OutcomeCache(store).forget(event.project)
    await forget_quarantined(store, event.project, finding.record_ids)
    log.info(
        "erased", erasure_id=event.data.erasure_id, records=finding.records, dataset_ids=finding.dataset_ids
    )
    return finding


async def recall(table: RecordTable, store: ObjectStore, erasures: Mapping[str, Erasure]) -> set[str]:
    """Let ``table`` remember the records in the stored findings of ``erasures`` (by id of the request), which
    another process may have carried out. Return the requests that have a finding.

    Raises:
        TransientError: the store is away.
    """
    found: set[str] = set()
    for request_id, erasure in erasures.items():
        if (data := await store.read(f"{place_of(erasure.project, request_id)}.json")) is not None:
            finding = ErasureFinding.model_validate_json(data)
            table.remember(erasure.project, finding.record_ids, erasure.until)
            found.add(request_id)
    return found


async def finding_ref(event: Envelope[ErasureRequested], store: ObjectStore) -> ArtifactRef | None:
    """Return the stored finding of ``forget`` for ``event``; None: there is none."""
    path = f"{place_of(event.project, event.id)}.json"
    data = await store.read(path)
    return None if data is None else ArtifactRef(path=path, sha256=content_sha256(data), size_bytes=len(data))


async def _written_down(
    event: Envelope[ErasureRequested],
    erasure: Erasure,
    rows: pl.DataFrame,
    store: ObjectStore,
    names: Pseudonyms,
    warn: Warn,
) -> ErasureFinding:
    path = f"{place_of(event.project, event.id)}.json"
    if (earlier := await store.document(path, ErasureFinding)) is not None:
        return earlier
    own = set(rows["record_id"])
    # Versions made before there were pseudonyms hold the id itself.
    person = erasure.customer
    groups = [] if person is None else [names.of("group", person), person]
    held = await _held_by_versions(erasure.project, own, groups, store, warn)
    finding = ErasureFinding(
        records=len(own),
        dataset_ids=tuple(sorted(held)),
        lessons=await taught_of(store, event.project, erasure.subject),
        record_ids=tuple(sorted(own.union(*held.values()))),
    )
    # Another replica may have searched at the same time and found other records: the first finding counts.
    return await store.first_document(path, finding)


async def _held_by_versions(
    project: str, record_ids: Set[str], groups: Sequence[str], store: ObjectStore, warn: Warn
) -> dict[str, set[str]]:
    """Return, by version in the store, its records that are among ``record_ids`` or belong to ``groups``. A
    version of ``project`` is named without records if they cannot be read."""
    found: dict[str, set[str]] = {}
    for dataset_id, paths in groupby(await store.list("datasets"), lambda path: path.split("/")[1]):
        owner = await _owner(dataset_id, store, warn)
        if owner not in (project, None):
            continue
        # Another project's customer may have the same id, but neither the same pseudonym nor the same record.
        own = groups if owner is not None else groups[:1]
        held, damaged = await _held(paths, record_ids, own, store, warn)
        if held or (damaged and owner is not None):
            found[dataset_id] = held
    return found


async def _owner(dataset_id: str, store: ObjectStore, warn: Warn) -> str | None:
    """Return the project of a version; None: its manifest is missing, as while it is written, or damaged."""
    path = f"datasets/{dataset_id}/{MANIFEST}"
    if (data := await store.read(path)) is None:
        return None
    try:
        owner = decode_data(Owner, data)
    except InvalidEvent as error:
        _report_damaged(path, str(error), warn)
        return None
    warn(f"damaged {path}", None)
    return owner.project


async def _held(
    paths: Iterable[str], record_ids: Set[str], groups: Sequence[str], store: ObjectStore, warn: Warn
) -> tuple[set[str], bool]:
    """Return the records whose text is in one of a version's files, and whether a file is damaged."""
    held, is_damaged = set[str](), False
    for path in paths:
        # ``read`` returns None for a missing file: another replica may carry out the same erasure.
        is_searched = path.endswith(".parquet") and not path.endswith(WITHOUT_ROWS)
        if not is_searched or (data := await store.read(path)) is None:
            continue
        try:
            held |= await asyncio.to_thread(_taken, BytesIO(data), record_ids, groups)
        except pl.exceptions.PolarsError as error:
            _report_damaged(path, type(error).__name__, warn)
            is_damaged = True
        else:
            warn(f"damaged {path}", None)
    return held, is_damaged


def _report_damaged(path: str, why: str, warn: Warn) -> None:
    log.error("version_damaged", path=path, reason=why)
    text = f"an erasure cannot read {path} ({why}); restore it. The next erasure looks at it again"
    warn(f"damaged {path}", text)


def _taken(parquet: BytesIO, record_ids: Set[str], groups: Sequence[str]) -> set[str]:
    columns = set(pl.read_parquet_schema(parquet)) & {"record_id", "record_ids", "group", "example_id"}
    if columns.isdisjoint({"record_id", "record_ids"}):
        return set()
    rows = pl.read_parquet(parquet, columns=sorted(columns))
    if "record_ids" in columns:
        rows = rows.explode("record_ids").rename({"record_ids": "record_id"})
    if "example_id" in columns:  # lineage rows without one only name a record: its text is in no file
        rows = rows.filter(pl.col("example_id").is_not_null())
    taken = pl.col("record_id").is_in(list(record_ids))
    if "group" in columns:
        taken |= pl.col("group").is_in(groups)
    return set(rows.filter(taken)["record_id"].drop_nulls())


async def _once(
    event: Envelope[ErasureRequested], what: str, store: ObjectStore, delete: Callable[[], Awaitable[None]]
) -> None:
    """Delete ``what`` only once: it may have been published again since, under the same name."""
    done = f"{place_of(event.project, event.id)}.{what}-deleted"
    if await store.exists(done):
        return
    await delete()
    await store.put(done, b"")


async def _delete_versions(dataset_ids: Iterable[str], store: ObjectStore) -> None:
    for dataset_id in dataset_ids:
        prefix = f"datasets/{dataset_id}/"
        paths = await store.list(prefix.rstrip("/"))
        await store.delete([path for path in paths if path.removeprefix(prefix) not in WITHOUT_ROWS])
        log.warning("dataset_rows_deleted", dataset_id=dataset_id)
