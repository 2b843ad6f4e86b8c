"""Index versions in the object store, under ``indexes/<project>/<index_id>/``."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import UTC, datetime, timedelta
from io import BytesIO

import polars as pl
import structlog
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.index import IndexManifest
from tunewheel_contracts.identity import content_sha256
from tunewheel_retrieval.files import IndexFiles
from tunewheel_retrieval.index import Index
from tunewheel_retrieval.opening import files_of, open_index
from tunewheel_runtime.store import ArtifactConflict, ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_index.documents import Version, from_frame, to_frame

log = structlog.get_logger(__name__)
MANIFEST = "manifest.json"
UNNAMED = "unnamed"
"""The name of a mark in a version's folder. It is written before the files and deleted once an event has
named the version."""
STRAY_SECONDS = 86_400.0
"""The age at which a version that still has this mark is deleted: no process will name it, because the one
that stored it has died or is no longer the leader."""
VERSIONS = "versions"
"""The folder of tables of document versions, beside those of index versions."""


def folder_of(project: str) -> str:
    """Return the folder of a project's versions."""
    return f"indexes/{project}"


class IndexStore:
    """Writes, opens and deletes versions."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def write(self, files: IndexFiles) -> ArtifactRef:
        """Store a version and return its manifest, which is written last. A damaged file is replaced.

        If two processes store the same version, both return the manifest that was stored first.

        Raises:
            TransientError: the store cannot be reached.
        """
        folder = f"{folder_of(files.project)}/{files.index_id}"
        lies, mark = await self._store.written(folder), f"{folder}/{UNNAMED}"
        if mark in lies or f"{folder}/{MANIFEST}" not in lies:
            await self._store.replace(mark, b"")  # even if it exists, to renew its age
        refs = {name: await self._put(f"{folder}/{name}", data) for name, data in files.by_name().items()}
        path, ours = f"{folder}/{MANIFEST}", files.manifest(refs).model_dump_json().encode()
        data = await self._store.first(path, ours)
        if data != ours and not await self._is_whole(data):
            await self._store.replace(path, data := ours)
        return ArtifactRef(path=path, sha256=content_sha256(data), size_bytes=len(data))

    async def _is_whole(self, manifest: bytes) -> bool:
        try:
            for one in files_of(decode_data(IndexManifest, manifest)):
                await self._store.get(one)
        except (InvalidEvent, ArtifactMissing, CorruptArtifact):
            return False
        return True

    async def _put(self, path: str, data: bytes) -> ArtifactRef:
        """Store ``data``. ``path`` holds its hash, so a file there with other content is damaged."""
        try:
            return await self._store.put(path, data)
        except ArtifactConflict:
            log.warning("damaged_file_replaced", path=path)
            await self._store.replace(path, data)
            return ArtifactRef(path=path, sha256=content_sha256(data), size_bytes=len(data))

    async def write_versions(self, project: str, versions: Sequence[Version]) -> ArtifactRef:
        """Store the table from which the next process continues. Its name follows from its content."""
        data = await asyncio.to_thread(_parquet, versions)  # hundreds of thousands of rows block the loop
        return await self._put(f"{folder_of(project)}/{VERSIONS}/{content_sha256(data)[:32]}.parquet", data)

    async def versions(self, event: IndexVersioned) -> list[Version]:
        """Return the document versions in the table that ``event`` names.

        Raises:
            ArtifactMissing, CorruptArtifact, TransientError
        """
        data = await self._store.get(event.versions)
        return await asyncio.to_thread(lambda: from_frame(pl.read_parquet(BytesIO(data))))

    async def open(self, ref: ArtifactRef) -> Index:
        """Open the version whose manifest ``ref`` names; see ``open_index``."""
        return await open_index(self._store, ref)

    async def drop_old(
        self, project: str, *, keep: Collection[str], most: int, versions: ArtifactRef
    ) -> None:
        """Delete old versions, and versions that were never named; see ``erase``.

        Kept are the versions in ``keep`` and as many of the newest ones as make ``most`` altogether.
        """
        await self._store.delete([_mark_of(project, index_id) for index_id in keep])
        folders = await self._folders(project)
        latest = datetime.now(UTC) - timedelta(seconds=STRAY_SECONDS)
        strays = {
            index_id
            for index_id, files in folders.items()
            if files.get(_mark_of(project, index_id), latest) < latest
        }
        made = {
            index_id: files[_manifest_of(project, index_id)]
            for index_id, files in folders.items()
            if index_id not in strays and _manifest_of(project, index_id) in files
        }
        newest = sorted(made, key=lambda name: (name in keep, made[name]), reverse=True)
        await self.erase(project, {*newest[most:], *strays}, versions=versions)

    async def holding(
        self, project: str, document_id: str, *, standing: Collection[str]
    ) -> dict[str, set[str]]:
        """Return, by index version, the records of the document that it holds and that are not in
        ``standing``. A version that cannot be read may hold some, so it is included, without a record."""
        found: dict[str, set[str]] = {}
        for index_id in await self._folders(project):
            data = await self._store.read(_manifest_of(project, index_id))
            if data is None:
                continue  # ``erase`` deletes a version without a manifest in any case
            try:
                table = await self._store.get(decode_data(IndexManifest, data).documents)
            except (InvalidEvent, ArtifactMissing, CorruptArtifact) as error:
                log.warning("index_version_unreadable", project=project, index_id=index_id, error=str(error))
                found[index_id] = set()
                continue
            records = await asyncio.to_thread(_records_of, document_id, table)
            if taken := records.difference(standing):
                found[index_id] = taken
        return found

    async def erase(self, project: str, index_ids: Collection[str], *, versions: ArtifactRef | None) -> None:
        """Delete the versions ``index_ids``, all versions without a manifest, and all tables of document
        versions except ``versions``. No version of the project may be written at the same time."""
        for index_id, files in (await self._folders(project)).items():
            manifest = _manifest_of(project, index_id)
            if index_id in index_ids or manifest not in files:
                # The manifest goes last, so that a half-deleted version is found again; then the mark.
                last = [manifest, _mark_of(project, index_id)]
                await self._store.delete([*(files.keys() - last), *last])
        tables = await self._store.list(f"{folder_of(project)}/{VERSIONS}")
        await self._store.delete([path for path in tables if versions is None or path != versions.path])

    async def _folders(self, project: str) -> dict[str, dict[str, datetime]]:
        """Return, by version, the paths of its files and the time at which each was written."""
        found: dict[str, dict[str, datetime]] = {}
        for path, moment in (await self._store.written(folder_of(project))).items():
            found.setdefault(path.split("/")[2], {})[path] = moment
        found.pop(VERSIONS, None)
        return found


def _records_of(document_id: str, table: bytes) -> set[str]:
    return set(pl.read_parquet(BytesIO(table)).filter(pl.col("document_id") == document_id)["record_id"])


def _parquet(versions: Sequence[Version]) -> bytes:
    buffer = BytesIO()
    to_frame(versions).write_parquet(buffer, statistics=False)
    return buffer.getvalue()


def _manifest_of(project: str, index_id: str) -> str:
    return f"{folder_of(project)}/{index_id}/{MANIFEST}"


def _mark_of(project: str, index_id: str) -> str:
    return f"{folder_of(project)}/{index_id}/{UNNAMED}"
