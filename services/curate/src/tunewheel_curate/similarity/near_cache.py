"""Stores the near-duplicate index between builds, so that texts that were compared once are not compared
again."""

from __future__ import annotations

import zipfile
from io import BytesIO

import numpy as np
from tunewheel_runtime.store import ObjectStore

from tunewheel_curate.project_cache import ProjectCache
from tunewheel_curate.similarity.near_index import NearIndex, empty_index
from tunewheel_curate.similarity.shingling import ALGORITHM, BANDS

_FIELDS = ("high", "low", "sizes", "bands", "codes", "shared")
_UNREADABLE = (zipfile.BadZipFile, ValueError, KeyError, OSError, EOFError, NotImplementedError)


class NearCache:
    """Where the index of each project lies in ``store``."""

    def __init__(self, store: ObjectStore) -> None:
        self._files = ProjectCache(store, "near-duplicates", "npz", ALGORITHM)

    async def read(self, project: str) -> NearIndex:
        """Return the index of ``project``'s last build; an empty one if it is missing or unusable."""
        return await self._files.read(project, unpacked) or empty_index()

    async def write(self, project: str, index: NearIndex, *, earlier: NearIndex | None = None) -> None:
        """Store the index of ``project``, unless it has the same texts as ``earlier``, the index that was
        read."""
        if earlier is not None and len(earlier) == len(index) and bool((earlier.high == index.high).all()):
            return
        await self._files.write(project, packed(index))

    async def forget(self, project: str) -> None:
        """Delete the stored index of ``project``.

        Raises:
            TransientError: the store is away.
        """
        await self._files.forget(project)


def packed(index: NearIndex) -> bytes:
    """Return ``index`` as an uncompressed ``.npz``, whose members carry a CRC-32; equal indexes give equal
    bytes."""
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in _FIELDS:
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, so that equal indexes give equal bytes
            with archive.open(member, "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, getattr(index, name), allow_pickle=False)
    return buffer.getvalue()


def unpacked(data: bytes) -> NearIndex | None:
    """Return the index in ``data``, or None where it is broken."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            arrays = {name: _array(archive, name) for name in _FIELDS}
    except _UNREADABLE:
        return None
    index = NearIndex(**arrays)
    return index if _is_whole(index) else None


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    # Read to the end: only then is the CRC compared.
    return np.lib.format.read_array(BytesIO(archive.read(f"{name}.npy")), allow_pickle=False)


def _is_whole(index: NearIndex) -> bool:
    texts, pairs = index.high.shape, index.codes.shape
    wanted = {
        "high": (np.uint64, texts), "low": (np.uint64, texts), "sizes": (np.uint32, texts),
        "bands": (np.uint32, (BANDS, *texts)), "codes": (np.uint64, pairs), "shared": (np.uint32, pairs),
    }  # fmt: skip
    shaped = all(
        (array := getattr(index, name)).dtype == kind and array.shape == shape
        for name, (kind, shape) in wanted.items()
    )
    return shaped and bool(((index.codes & np.uint64(0xFFFFFFFF)) < len(index)).all())
