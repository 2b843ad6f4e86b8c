"""Reads a dataset version from the object store, and verifies every file against its manifest."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.fields import ArtifactRef, Slug
from tunewheel_contracts.formats.dataset import DatasetManifest

if TYPE_CHECKING:
    import polars as pl
    from tunewheel_runtime.store import ObjectStore

SHOWN_VERSIONS = 10
_SLUG: TypeAdapter[str] = TypeAdapter(Slug)


class UnknownDataset(TunewheelError):
    """The store holds no such version."""


@dataclass(frozen=True)
class Version:
    """A version and the store that holds its files."""

    manifest: DatasetManifest
    store: ObjectStore

    async def frame(self, ref: ArtifactRef) -> pl.DataFrame:
        """Return the rows of one of its Parquet files.

        Raises:
            ArtifactMissing: the file is gone, for example after an erasure that deletes versions.
            CorruptArtifact, TransientError
        """
        import polars as pl

        return pl.read_parquet(BytesIO(await self.store.get(ref)))

    async def text(self, ref: ArtifactRef) -> str:
        """Return one of its text files. Raises as ``frame``."""
        return (await self.store.get(ref)).decode("utf-8")


async def open_version(dataset_id: str, store_url: str) -> Version:
    """Find a version by its id.

    Raises:
        UnknownDataset: there is none; the message lists the existing versions.
        TransientError: the store is away.
    """
    from tunewheel_runtime.store import ObjectStore

    store = ObjectStore(store_url)
    try:
        _SLUG.validate_python(dataset_id)
    except ValidationError:
        raise await _unknown(dataset_id, store) from None
    data = await store.read(f"datasets/{dataset_id}/manifest.json")
    if data is None:
        raise await _unknown(dataset_id, store)
    return Version(decode_data(DatasetManifest, data), store)


async def customers_of(version: Version) -> tuple[int, ...]:
    """Return the number of held-out rows of each customer. If the rows are gone, one and two are assumed."""
    from tunewheel_runtime.store import ArtifactMissing
    from tunewheel_verdicts.power import sizes_of

    try:
        groups = (await version.frame(version.manifest.holdout))["group"].to_list()
    except ArtifactMissing:
        return sizes_of(version.manifest.counts.holdout)
    return tuple(Counter(groups).values())


async def _unknown(dataset_id: str, store: ObjectStore) -> UnknownDataset:
    paths = await store.list("datasets")
    stored = [path.split("/")[1] for path in paths if path.endswith("/manifest.json")]
    more = f" and {len(stored) - SHOWN_VERSIONS} more" if len(stored) > SHOWN_VERSIONS else ""
    there = f"there are {', '.join(stored[:SHOWN_VERSIONS])}{more}" if stored else "there is none yet"
    return UnknownDataset(f"dataset: {store.url} holds no {dataset_id!r}; {there} (is --store right?)")
