"""Which records a dataset version was made of: its own lineage file in the object store says it.

Nothing of ``record.ingested`` is read. Files are named by content, so what was read once is right for ever;
only what an erasure deleted must not be told any more.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from io import BytesIO
from typing import Protocol

import polars as pl
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.erasure import ErasureFinding

COLUMNS = (
    "record_id", "source_event_id", "source_id", "kind", "validated_by", "example_id", "stage", "reason",
)  # fmt: skip
ASKED_BY = ("record_id", "source_event_id", "source_id", "example_id")
"""The columns that a record is found by."""
CACHED_BYTES = 256 << 20
AT_ONCE = 4


class Artifacts(Protocol):
    """The part of the object store that is read."""

    async def get(self, ref: ArtifactRef) -> bytes: ...


class RecordFiles:
    """Reads the lineage files of versions; the latest used stay in memory."""

    def __init__(self, store: Artifacts, *, cached_bytes: int = CACHED_BYTES) -> None:
        self._store = store
        self._cached_bytes = cached_bytes
        self._frames: OrderedDict[str, pl.DataFrame] = OrderedDict()
        self._manifests: dict[str, DatasetManifest] = {}
        self._erased: dict[str, frozenset[str]] = {}
        self._reading = asyncio.Semaphore(AT_ONCE)

    async def manifest(self, ref: ArtifactRef) -> DatasetManifest:
        """Return the manifest of a version.

        Raises:
            ArtifactMissing, CorruptArtifact, TransientError
        """
        if ref.sha256 not in self._manifests:
            self._manifests[ref.sha256] = decode_data(DatasetManifest, await self._store.get(ref))
        return self._manifests[ref.sha256]

    async def rows(self, manifest: ArtifactRef) -> pl.DataFrame:
        """Return those of ``COLUMNS`` that the version's lineage file has, one row per record and example.

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
        """Return the records that an erasure took; errors as ``rows``."""
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
