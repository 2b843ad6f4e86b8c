"""Reads which records a dataset version was made of, from its lineage file in the object store.

``record.ingested`` is not read. Files are content-addressed, so a cached file never becomes outdated. Files
that an erasure deleted must not be shown any more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from io import BytesIO

import polars as pl
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.erasure import ErasureFinding
from tunewheel_runtime.store import ObjectStore

COLUMNS = (
    "record_id", "source_event_id", "source_id", "kind", "validated_by", "example_id", "stage", "reason",
)  # fmt: skip
ASKED_BY = ("record_id", "source_event_id", "source_id", "example_id")
"""The columns by which a record can be found."""
CACHED_BYTES = 256 << 20
AT_ONCE = 4


class RecordFiles:
    """Reads the lineage files of dataset versions. The most recently used files are cached."""

    def __init__(self, store: ObjectStore, *, cached_bytes: int = CACHED_BYTES) -> None:
        self._store = store
        self._cached_bytes = cached_bytes
        self._frames: OrderedDict[str, pl.DataFrame] = OrderedDict()
        self._manifests: dict[str, DatasetManifest] = {}
        self._erased: dict[str, frozenset[str]] = {}
        self._reading = asyncio.Semaphore(AT_ONCE)

    async def manifest(self, ref: ArtifactRef) -> DatasetManifest:
        """Return the manifest of a version. Raises ArtifactMissing, CorruptArtifact, TransientError."""
        if ref.sha256 not in self._manifests:
            self._manifests[ref.sha256] = decode_data(DatasetManifest, await self._store.get(ref))
        return self._manifests[ref.sha256]

    async def rows(self, manifest: ArtifactRef) -> pl.DataFrame:
        """Return the version's lineage file, one row per record and example, with those of ``COLUMNS`` that
        the file has.

        Raises:
            ArtifactMissing: the file is gone, as after an erasure that deletes versions.
            CorruptArtifact, TransientError
        """
        ref = (await self.manifest(manifest)).lineage
        if ref is None:
            return pl.DataFrame(schema=dict.fromkeys(COLUMNS, pl.String))
        if ref.sha256 in self._frames:
            self._frames.move_to_end(ref.sha256)
            return self._frames[ref.sha256]
        async with self._reading:
            data = await self._store.get(ref)
            frame = await asyncio.to_thread(_read, data)
        self._keep(ref.sha256, frame)
        return frame

    async def erased(self, finding: ArtifactRef) -> frozenset[str]:
        """Return the ids of the records that an erasure erased. Raises as ``rows`` does."""
        if finding.sha256 not in self._erased:
            found = decode_data(ErasureFinding, await self._store.get(finding))
            self._erased[finding.sha256] = frozenset(found.record_ids)
        return self._erased[finding.sha256]

    def _keep(self, sha256: str, frame: pl.DataFrame) -> None:
        self._frames[sha256] = frame
        while sum(int(f.estimated_size()) for f in self._frames.values()) > self._cached_bytes:
            self._frames.popitem(last=False)


def _read(data: bytes) -> pl.DataFrame:
    frame = pl.read_parquet(BytesIO(data))
    missing = [pl.lit(None, pl.String).alias(name) for name in COLUMNS if name not in frame.columns]
    return frame.with_columns(missing).select(COLUMNS)
