"""Index versions in the object store: ``indexes/<project>/<index_id>/``, created once."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from io import BytesIO

import polars as pl
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.index import IndexManifest
from tunewheel_contracts.identity import content_sha256
from tunewheel_retrieval.building import IndexFiles
from tunewheel_retrieval.index import BrokenIndex, Index
from tunewheel_runtime.store import ObjectStore

from tunewheel_index.documents import Version, from_frame, to_frame

MANIFEST = "manifest.json"
VERSIONS = "versions"
"""The folder of tables of document versions, beside those of index versions."""


def folder_of(project: str) -> str:
    """Return where a project's versions lie."""
    return f"indexes/{project}"


class IndexStore:
    """Writes, opens and deletes versions."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def write(self, files: IndexFiles) -> ArtifactRef:
        """Store a version and return its manifest; of two processes that store one version, both return what
        was stored first. The manifest comes last: a version that has one is whole.

        Raises:
            TransientError: the store cannot be reached.
        """
        folder = f"{folder_of(files.project)}/{files.index_id}"
        refs = {
            name: await self._store.put(f"{folder}/{name}", data) for name, data in files.by_name().items()
        }
        path, ours = f"{folder}/{MANIFEST}", files.manifest(refs).model_dump_json().encode()
        data = await self._store.first(path, ours)
        if data != ours and not await self._is_whole(data):
            await self._store.replace(path, data := ours)  # the files that it named were deleted
        return ArtifactRef(path=path, sha256=content_sha256(data), size_bytes=len(data))

    async def _is_whole(self, manifest: bytes) -> bool:
        named = _named(decode_data(IndexManifest, manifest))
        return all([await self._store.exists(one.path) for one in named])

    async def write_versions(self, project: str, versions: list[Version]) -> ArtifactRef:
        """Store the table that the next process goes on from, under a name that follows from its content."""
        buffer = BytesIO()
        to_frame(versions).write_parquet(buffer, statistics=False)
        data = buffer.getvalue()
        return await self._store.put(
            f"{folder_of(project)}/{VERSIONS}/{content_sha256(data)[:32]}.parquet", data
        )

    async def versions(self, event: IndexVersioned) -> list[Version]:
        """Return the document versions that ``event`` names.

        Raises:
            ArtifactMissing, CorruptArtifact, TransientError
        """
        return from_frame(pl.read_parquet(BytesIO(await self._store.get(event.versions))))

    async def open(self, ref: ArtifactRef) -> Index:
        """Open the version whose manifest ``ref`` names.

        Raises:
            BrokenIndex, InvalidEvent, ArtifactMissing, CorruptArtifact, TransientError
        """
        manifest = decode_data(IndexManifest, await self._store.get(ref))
        files: dict[str, bytes] = {}
        for one in _named(manifest):
            data = await self._store.read(one.path)
            if data is None:
                raise BrokenIndex("manifest", f"names {one.path}, which is not there")
            files[one.path] = data
        return await asyncio.to_thread(Index.open, manifest, files)

    async def drop_old(
        self, project: str, *, keep: Collection[str], most: int, versions: ArtifactRef
    ) -> None:
        """Delete the files of all versions but those to ``keep`` and the newest, ``most`` together, and all
        tables of document versions but ``versions``."""
        folder = folder_of(project)
        written = await self._store.written(folder)
        made = {
            path.split("/")[2]: moment for path, moment in written.items() if path.endswith(f"/{MANIFEST}")
        }
        newest = sorted(made, key=lambda name: (name in keep, made[name]), reverse=True)
        await self.erase(project, newest[most:], versions=versions)

    async def holding(self, project: str, erasure: Erasure) -> dict[str, set[str]]:
        """Return, by version in the store, the records of its documents that ``erasure`` takes."""
        found: dict[str, set[str]] = {}
        for path in await self._store.list(folder_of(project)):
            if not path.endswith(f"/{MANIFEST}"):
                continue
            data = await self._store.read(path)
            if data is None:
                continue
            manifest = decode_data(IndexManifest, data)
            table = await self._store.read(manifest.documents.path)
            if table is not None and (held := _taken(pl.read_parquet(BytesIO(table)), erasure)):
                found[manifest.index_id] = held
        return found

    async def erase(self, project: str, index_ids: Collection[str], *, versions: ArtifactRef | None) -> None:
        """Delete ``index_ids``, and all tables of document versions but ``versions``."""
        for index_id in sorted(index_ids):
            await self._delete(project, index_id)
        tables = await self._store.list(f"{folder_of(project)}/{VERSIONS}")
        await self._store.delete([path for path in tables if versions is None or path != versions.path])

    async def _delete(self, project: str, index_id: str) -> None:
        folder = f"{folder_of(project)}/{index_id}"
        paths = await self._store.list(folder)
        # without its manifest nobody takes the version for whole
        await self._store.delete(sorted(paths, key=lambda path: not path.endswith(f"/{MANIFEST}")))


def _named(manifest: IndexManifest) -> tuple[ArtifactRef, ...]:
    return (manifest.passages, manifest.vectors, manifest.documents, *manifest.lexical)


def _taken(documents: pl.DataFrame, erasure: Erasure) -> set[str]:
    subject = pl.col("document_id") == erasure.subject
    until = pl.lit(erasure.until, dtype=pl.Datetime("us", "UTC"))
    return set(documents.filter(subject & (pl.col("published_at") <= until))["record_id"])
