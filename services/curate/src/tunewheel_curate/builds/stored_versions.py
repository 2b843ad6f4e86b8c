"""The dataset versions in the store. A version that the store lost is built again from the log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path

import polars as pl
import structlog
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.errors import InvalidEvent, TunewheelError
from tunewheel_contracts.event import decode_data
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.store import ArtifactConflict, ArtifactMissing, CorruptArtifact, ObjectStore

from tunewheel_curate.builds.building import Builder
from tunewheel_curate.builds.log_state import LogState
from tunewheel_curate.builds.order import BuildOrder
from tunewheel_curate.holdout.memory import RETIRED
from tunewheel_curate.records.selection import WITHDRAWN
from tunewheel_curate.versions.versioning import MANIFEST, manifest_ref

log = structlog.get_logger(__name__)


class VersionLost(TunewheelError):
    """The previous version is missing from the store or damaged, and cannot be built again. The next version
    needs it, so an operator must restore it."""

    def __init__(self, dataset_id: str, why: str) -> None:
        super().__init__(
            f"previous: {dataset_id} {why}; restore datasets/{dataset_id}, which holds the memory of what "
            "must never be trained on"
        )

    @classmethod
    def for_good(cls, dataset_id: str, why: str) -> VersionLost:
        return cls(dataset_id, f"is missing from the store and cannot be built again ({why})")


def _trained(manifest: DatasetManifest) -> list[str | None]:
    refs = (manifest.train, manifest.preferences, manifest.negatives)
    return [ref.sha256 if ref else None for ref in refs] + [manifest.index_id]


def _records(rows: pl.DataFrame) -> set[str]:
    return set(rows["record_ids"].explode())


class StoredVersions:
    """Reads and writes versions, and prepares the orders of builds."""

    def __init__(self, store: ObjectStore, state: LogState, builder: Builder, *, table_url: str) -> None:
        self._store = store
        self._state = state
        self._builder = builder
        self._table_url = table_url

    def order(
        self,
        spec: ProjectSpec,
        *,
        records_upto: Mapping[str, int] | None,
        withdrawals_upto: Mapping[str, int] | None,
        judged_upto: Mapping[str, int] | None,
        erasures: tuple[Erasure, ...],
        previous: str | None,
        published: Iterable[DatasetVersioned],
        index: ArtifactRef | None,
    ) -> BuildOrder:
        """Return the order for a version of ``spec``'s project that follows the version ``previous``.

        ``published`` are all earlier versions. None for ``records_upto``, ``withdrawals_upto`` or
        ``judged_upto`` means no records, no withdrawals, or no decisions.
        """
        return BuildOrder(
            table_url=self._table_url,
            spec=spec,
            records_upto=dict(records_upto or {}),
            folder="",
            withdrawals=self._state.withdrawals.before(spec.project, withdrawals_upto or {}),
            judged=self._state.judgements.before(spec.project, judged_upto or {}),
            erasures=erasures,
            previous=previous,
            published=tuple(one.dataset_id for one in published),
            index=index,
        )

    async def keep(self, manifest: DatasetManifest, folder: Path) -> tuple[DatasetManifest, ArtifactRef]:
        """Store the version's files. A version with the same name and rows stays as it is and is returned.

        Raises:
            ArtifactConflict: other content lies under the version's name.
            TransientError
        """
        prefix = f"datasets/{manifest.dataset_id}"
        try:
            refs = await self._store.put_directory(prefix, folder, last=MANIFEST)
            return manifest, refs[-1]
        except ArtifactConflict:
            # Other records, say of a log that was deleted since, may give the same rows: keep the first
            # version.
            data = await self._store.read(f"{prefix}/{MANIFEST}")
            if data is None:
                raise
            existing = decode_data(DatasetManifest, data)
            if existing.rows_sha256 != manifest.rows_sha256:
                raise
            return existing, manifest_ref(existing, data)

    async def manifest(self, version: DatasetVersioned) -> DatasetManifest:
        """Return the manifest of ``version``.

        Raises:
            VersionLost: what the store holds is damaged, or of a newer release.
            ArtifactMissing, TransientError
        """
        try:
            return decode_data(DatasetManifest, await self._read(version, version.manifest))
        except InvalidEvent as error:
            raise VersionLost(version.dataset_id, f"cannot be read by this release ({error})") from error

    async def equal(self, version: DatasetVersioned, made: DatasetManifest, folder: Path) -> bool:
        """Return whether the build ``made`` in ``folder`` holds what ``version`` does, but for held-out rows
        that it retired. Training would then give the same model. A version whose rows an erasure deleted
        held something else.

        Raises:
            VersionLost, ArtifactMissing, TransientError: see ``manifest``.
        """
        before = await self.manifest(version)
        if before.spec_sha256 != made.spec_sha256 or before.rows_sha256 == made.rows_sha256:
            return before.spec_sha256 == made.spec_sha256
        if _trained(before) != _trained(made):
            return False
        try:
            held = _records(pl.read_parquet(BytesIO(await self._read(version, before.holdout))))
        except ArtifactMissing:
            return False
        left = _records(await asyncio.to_thread(pl.read_parquet, folder / "holdout.parquet"))
        fates = await asyncio.to_thread(pl.read_parquet, folder / "lineage.parquet")
        retired = set(fates.filter(pl.col("reason") == RETIRED)["record_id"])
        return left <= held and held - left <= retired

    async def used(self, version: DatasetVersioned) -> pl.DataFrame | None:
        """Return the lineage of the records that ``version`` has examples of; None if its lineage is missing
        or damaged, or its manifest is of a newer release."""
        try:
            manifest = decode_data(DatasetManifest, await self._store.get(version.manifest))
            lineage = await self._store.get(manifest.lineage) if manifest.lineage else b""
        except (ArtifactMissing, CorruptArtifact, InvalidEvent):
            return None
        rows = await asyncio.to_thread(pl.read_parquet, BytesIO(lineage)) if lineage else None
        return rows if rows is None else rows.filter(pl.col("example_id").is_not_null())

    async def takes_back(self, version: DatasetVersioned, folder: Path) -> bool:
        """Return whether ``version`` has examples of records that the build in ``folder`` knows as withdrawn,
        or does not know any more, since they were erased. True if nobody can tell."""
        used = await self.used(version)
        if used is None:
            return True
        fates = await asyncio.to_thread(pl.read_parquet, folder / "lineage.parquet")
        left = fates.filter(pl.col("reason").ne_missing(WITHDRAWN))["record_id"]
        return not used.filter(~pl.col("record_id").is_in(left.implode())).is_empty()

    async def discard(self, dataset_ids: Iterable[str]) -> None:
        """Delete the files of versions that will not be published any more."""
        for dataset_id in sorted(dataset_ids):
            await self._store.delete(await self._store.list(f"datasets/{dataset_id}"))

    async def memory_of(self, version: DatasetVersioned, *, stop: asyncio.Event) -> bytes | None:
        """Return the Parquet file of what ``version`` and earlier versions held out; None for a version that
        was made before this file existed.

        If the store lost the version, it is built again from the log, after the versions before it.

        Raises:
            VersionLost: the version cannot be built again, or its files in the store are damaged.
            TransientError
        """
        try:
            return await self._read_memory(version)
        except ArtifactMissing:
            await self._restore(version, stop=stop)
        return await self._read_memory(version)

    async def _read_memory(self, version: DatasetVersioned) -> bytes | None:
        ref = (await self.manifest(version)).holdout_memory
        return None if ref is None else await self._read(version, ref)

    async def _read(self, version: DatasetVersioned, ref: ArtifactRef) -> bytes:
        try:
            return await self._store.get(ref)
        except CorruptArtifact as error:
            raise VersionLost(version.dataset_id, f"is damaged in the store ({error})") from error

    async def _restore(self, version: DatasetVersioned, *, stop: asyncio.Event) -> None:
        name, spec = version.dataset_id, self._state.specs.get(version.spec_sha256)
        if spec is None:
            raise VersionLost.for_good(name, "its spec is no longer on the log")
        if version.index is not None and not await self._store.exists(version.index.path):
            raise VersionLost.for_good(
                name,
                f"{version.index.path}, whose passages it holds, is deleted; restoring that index helps too",
            )
        earlier = self._state.history.before(version)
        before = next((one for one in earlier if one.dataset_id == version.previous), None)
        memory = await self.memory_of(before, stop=stop) if before else None
        order = self.order(
            spec,
            records_upto=version.records_upto,
            withdrawals_upto=version.withdrawals_upto,
            judged_upto=version.judged_upto,
            erasures=self._state.erasures.of(version.project),
            previous=version.previous,
            published=earlier,
            index=version.index,
        )
        async with self._builder.build(order, stop=stop, memory=memory) as (outcome, folder):
            if outcome.manifest is None or outcome.manifest.dataset_id != name:
                raise VersionLost.for_good(
                    name,
                    "its records now give another version: some were erased since, or "
                    "TUNEWHEEL_PSEUDONYM_SECRET changed",
                )
            # Other bytes under this name would not match the hash that dataset.versioned published.
            written = await asyncio.to_thread((folder / MANIFEST).read_bytes)
            if manifest_ref(outcome.manifest, written) != version.manifest:
                raise VersionLost.for_good(name, "the libraries that write its files have changed since")
            try:
                await self.keep(outcome.manifest, folder)
            except ArtifactConflict as error:
                raise VersionLost(name, f"is damaged in the store ({error})") from error
        log.info("dataset_restored", dataset_id=name)
