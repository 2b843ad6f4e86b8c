"""Opens an index version from an object store."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.index import IndexManifest

from tunewheel_retrieval.index import Index


class Store(Protocol):
    """Reads artifacts, like the runtime's object store."""

    async def get(self, ref: ArtifactRef) -> bytes:
        """Return the bytes of an artifact, checked against ``ref``."""
        ...

    async def read(self, path: str) -> bytes | None:
        """Return the file at ``path``; None: there is none."""
        ...


async def open_index(store: Store, ref: ArtifactRef) -> Index:
    """Read and verify the version whose manifest ``ref`` names.

    Raises:
        BrokenIndex: a file is missing, or does not fit the manifest.
        InvalidEvent: the file that ``ref`` names is no manifest.
        ArtifactMissing, CorruptArtifact, TransientError: see ``ObjectStore.get``.
    """
    manifest = decode_data(IndexManifest, await store.get(ref))
    read = {one.path: await store.read(one.path) for one in files_of(manifest)}
    files = {path: data for path, data in read.items() if data is not None}
    # in a thread, because hashing a whole index would block the event loop
    return await asyncio.to_thread(Index.open, manifest, files)


def files_of(manifest: IndexManifest) -> tuple[ArtifactRef, ...]:
    """Return the files of a version, without its manifest."""
    return (manifest.passages, manifest.vectors, manifest.documents, *manifest.lexical)
