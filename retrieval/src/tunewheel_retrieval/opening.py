"""Opens an index version from an object store, and tells whether the version is still there."""

from __future__ import annotations

import asyncio
from typing import Protocol

from tunewheel_contracts.errors import InvalidEvent, TransientError, TunewheelError
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.index import IndexManifest

from tunewheel_retrieval.index import BrokenIndex, Index


class Store(Protocol):
    """Reads artifacts, like the runtime's object store."""

    async def get(self, ref: ArtifactRef) -> bytes:
        """Return the bytes of an artifact, checked against ``ref``."""
        ...

    async def read(self, path: str) -> bytes | None:
        """Return the file at ``path``; None: there is none."""
        ...

    async def exists(self, path: str) -> bool: ...


async def open_index(store: Store, ref: ArtifactRef) -> Index:
    """Read and verify the version whose manifest ``ref`` names.

    Raises:
        BrokenIndex: the manifest or a file is missing or damaged, or they do not fit each other.
        TransientError: the store is away.
    """
    try:
        manifest = decode_data(IndexManifest, await store.get(ref))
    except TransientError:
        raise
    except TunewheelError as error:
        raise BrokenIndex("manifest", str(error)) from error
    read = {one.path: await store.read(one.path) for one in files_of(manifest)}
    files = {path: data for path, data in read.items() if data is not None}
    # in a thread, because hashing a whole index would block the event loop
    return await asyncio.to_thread(Index.open, manifest, files)


async def is_deleted(store: Store, ref: ArtifactRef) -> bool:
    """Return whether the manifest of a version, or a file that it names, was deleted."""
    data = await store.read(ref.path)
    if data is None:
        return True
    try:
        files = files_of(decode_data(IndexManifest, data))
    except InvalidEvent:
        return False
    return not all([await store.exists(one.path) for one in files])


def files_of(manifest: IndexManifest) -> tuple[ArtifactRef, ...]:
    """Return the files of a version, without its manifest."""
    injections = () if manifest.injections is None else (manifest.injections,)
    return (manifest.passages, manifest.vectors, manifest.documents, *manifest.lexical, *injections)
