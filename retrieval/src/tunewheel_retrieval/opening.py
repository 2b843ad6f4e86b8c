"""Opens an index version that lies in an object store."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.index import IndexManifest

from tunewheel_retrieval.index import Index


class Store(Protocol):
    """What reads artifacts: the runtime's object store."""

    async def get(self, ref: ArtifactRef) -> bytes:
        """Return an artifact whose bytes are what ``ref`` says."""
        ...

    async def read(self, path: str) -> bytes | None:
        """Return what lies at ``path``; None: nothing."""
        ...


async def open_index(store: Store, ref: ArtifactRef) -> Index:
    """Return the version whose manifest ``ref`` names, all of it read and verified.

    Raises:
        BrokenIndex: a file is missing, or is not what the manifest says.
        InvalidEvent: the manifest is none.
        ArtifactMissing, CorruptArtifact, TransientError: see ``ObjectStore.get``.
    """
    manifest = decode_data(IndexManifest, await store.get(ref))
    read = {one.path: await store.read(one.path) for one in files_of(manifest)}
    files = {path: data for path, data in read.items() if data is not None}
    # what is read is as large as an index: its hashes are checked beside the event loop
    return await asyncio.to_thread(Index.open, manifest, files)


def files_of(manifest: IndexManifest) -> tuple[ArtifactRef, ...]:
    """Return the files of a version, beside its manifest."""
    return (manifest.passages, manifest.vectors, manifest.documents, *manifest.lexical)
