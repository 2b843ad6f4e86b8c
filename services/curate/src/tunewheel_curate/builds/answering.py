"""Makes one dataset version: collects the inputs, runs the build, stores the files, and returns the event."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import structlog
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import (
    BuildReason,
    DatasetRejected,
    DatasetRequested,
    DatasetVersioned,
    RecordKind,
)
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.fields import ArtifactRef, shared
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.quarantine import quarantine_path
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.identity import content_sha256
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ArtifactConflict
from tunewheel_runtime.view import LogReader

from tunewheel_curate.builds.building import Builder
from tunewheel_curate.builds.log_state import LogState
from tunewheel_curate.builds.order import BuildOutcome
from tunewheel_curate.builds.stored_versions import StoredVersions, VersionLost
from tunewheel_curate.documents.teaching import forget_taught, taught_of
from tunewheel_curate.outcomes import OutcomeCache
from tunewheel_curate.records.log import MissingRecords
from tunewheel_curate.versions.suite import unmet

log = structlog.get_logger(__name__)

NO_ROWS = content_sha256(b"")
Answer = Envelope[DatasetVersioned] | Envelope[DatasetRejected]


@dataclass(frozen=True)
class Basis:
    """The withdrawals and erasures that a build respects. If they change during a build, it is repeated. A
    decision about a record in quarantine that comes meanwhile counts for the next build."""

    withdrawals_upto: Mapping[str, int]
    erasures: tuple[Erasure, ...]
    judged_upto: Mapping[str, int] = field(compare=False)


class Answering:
    """Answers requests: builds versions and puts them into the store."""

    def __init__(
        self,
        service: Service,
        *,
        table_url: str,
        state: LogState,
        followed: LogReader,
        builder: Builder,
        missing: MissingRecords,
    ) -> None:
        self._service = service
        self._state = state
        self._followed = followed
        self._builder = builder
        self._missing = missing
        self._versions = StoredVersions(service.store, state, builder, table_url=table_url)

    async def answer(
        self,
        event: Envelope[DatasetRequested],
        spec: ProjectSpec,
        *,
        stop: asyncio.Event,
        newest: IndexVersioned | None = None,
    ) -> Answer:
        """Return the event that answers a request which names its records.

        Passages come from the index that the request names, or from the ``newest`` one if that is deleted. A
        record that is withdrawn or erased during the build must not be published, so the build is repeated.

        Raises:
            BuildStopped: ``stop`` was set.
            BuildFailed, WorkerFailed: see ``Builder.build``.
            TransientError: records are not in the table yet, or the store is away.
        """
        while True:
            basis, index = self._basis(event), await self._index_for(event.data, spec, newest)
            previous = self._state.history.latest(event.project)
            order = self._versions.order(
                spec,
                records_upto=event.data.records_upto,
                withdrawals_upto=basis.withdrawals_upto,
                judged_upto=basis.judged_upto,
                erasures=basis.erasures,
                previous=previous.dataset_id if previous else None,
                published=self._state.history.versions(event.project),
                index=index,
            )
            try:
                memory = await self._versions.memory_of(previous, stop=stop) if previous else None
                async with self._builder.build(order, stop=stop, memory=memory) as (outcome, folder):
                    await self._followed.refresh()
                    if self._basis(event) == basis:
                        return await self._publishable(event, spec, basis, outcome, folder, previous=previous)
            except VersionLost as error:
                return self.reject(event, spec, str(error))
            await self._forget_meanwhile(event.project, before=basis.erasures)
            log.info("build_repeated", project=event.project, reason="a source was taken back meanwhile")

    def reject(self, event: Envelope[DatasetRequested], spec: ProjectSpec, reason: str) -> Answer:
        """Return the event that rejects a request for ``reason``, without a build."""
        outcome = BuildOutcome(rows_sha256=NO_ROWS)
        return self._rejected(event, spec, self._basis(event), outcome, (reason,))

    async def uses(self, version: DatasetVersioned, kind: RecordKind, source_id: str) -> bool:
        """Return whether ``version`` has an example of a source; True if its lineage is missing or damaged,
        or its manifest is of a newer release."""
        rows = await self._versions.used(version)
        if rows is None:
            return True
        # Versions from before pseudonyms hold the id itself.
        named = [source_id, self._builder.pseudonyms(version.project).of("source", source_id)]
        source = (pl.col("kind") == kind.value) & pl.col("source_id").is_in(named)
        return not rows.filter(source).is_empty()

    async def _index_for(
        self, asked: DatasetRequested, spec: ProjectSpec, newest: IndexVersioned | None
    ) -> ArtifactRef | None:
        """Return the manifest of the index to build from: the named one, or the newest if that is deleted.

        The index service keeps only some versions. The named one may be gone if the request waited for long
        or an erasure came between.
        """
        if not spec.trains_with_passages:
            return None
        named = asked.index
        if named is not None and (newest is None or await self._service.store.exists(named.path)):
            return named
        return newest.manifest if newest is not None else None

    def _basis(self, event: Envelope[DatasetRequested]) -> Basis:
        pinned = event.data.withdrawals_upto
        upto = self._state.withdrawals.upto(event.project) if pinned is None else pinned
        judged = self._state.judgements.upto(event.project)
        return Basis(upto, self._state.erasures.of(event.project), judged)

    async def _forget_meanwhile(self, project: str, *, before: tuple[Erasure, ...]) -> None:
        """Delete what a build kept of records and documents that were erased during that build: a teacher's
        answers, and the outcomes of rows."""
        store = self._service.store
        for erasure in self._state.erasures.of(project):
            if erasure not in before:
                keys = await taught_of(store, project, erasure.subject)
                await forget_taught(store, project, erasure.subject, keys)
                await OutcomeCache(store).forget(project)
                await store.delete([quarantine_path(project)])

    async def _publishable(
        self,
        event: Envelope[DatasetRequested],
        spec: ProjectSpec,
        basis: Basis,
        outcome: BuildOutcome,
        folder: Path,
        *,
        previous: DatasetVersioned | None,
    ) -> Answer:
        manifest = outcome.manifest
        if manifest is None:
            return self._rejected(event, spec, basis, outcome, outcome.rejections)
        if previous is not None and await self._versions.equal(previous, manifest, folder):
            unchanged = self._unchanged(event, previous)
            if unchanged is not None:
                return self._rejected(event, spec, basis, outcome, (unchanged,))
        try:
            manifest, ref = await self._versions.keep(manifest, folder)
        except ArtifactConflict as error:
            place = f"datasets/{manifest.dataset_id}"
            leftover = f"store: {error}, from a build that never ended; remove {place} and ask again"
            return self._rejected(event, spec, basis, outcome, (leftover,))
        held = unmet(manifest.expectations, "hold")
        waits = bool(held) and event.data.release != manifest.dataset_id
        if waits and previous is not None and not event.data.release:
            # What was taken back waits for nobody. A release may name fewer records than the version before.
            waits = not await self._versions.takes_back(previous, folder)
        if waits:
            return self._rejected(
                event, spec, basis, outcome, _waits(manifest, held, event.data), held=manifest.dataset_id
            )
        superseded = self._state.history.held(event.project).keys() - {manifest.dataset_id}
        await self._versions.discard(superseded)  # before the answer: what dies here begins again
        data = DatasetVersioned(
            **shared(DatasetVersioned, manifest),
            manifest=ref,
            training_sha256=manifest.spec.training_sha256,
            base_model=manifest.spec.base_model,
            reason=event.data.reason,
            records_upto=event.data.records_upto,
            withdrawals_upto=dict(basis.withdrawals_upto),
            judged_upto=dict(basis.judged_upto) or None,
            missing_records=self._missing.count or None,
            warnings=(*unmet(manifest.expectations, "warn"), *held),
        )
        log.info("dataset_versioned", dataset_id=manifest.dataset_id, **manifest.counts.model_dump())
        return self._service.new(data, cause=event, correlation_id=f"turn-{manifest.dataset_id}")

    def _unchanged(self, event: Envelope[DatasetRequested], previous: DatasetVersioned) -> str | None:
        """Return why a build with the same content as ``previous`` is rejected, or None if it is allowed.

        It is allowed by command if the turn of ``previous`` ended badly: the same data may win against
        another champion. It is allowed for alarms if that turn got no verdict, for example for a lost GPU.
        """
        name, failure = previous.dataset_id, self._state.turns.failure(event.project, previous.dataset_id)
        if failure is None:
            return f"records: nothing changed since {name}; publish new records first"
        retries = event.data.reason is BuildReason.DRIFT and self._state.turns.may_try_again(
            event.project, name
        )
        if event.data.reason is BuildReason.COMMAND or retries:
            log.info("dataset_tried_again", project=event.project, previous=name, failure=failure)
            return None
        return (
            f"records: nothing changed since {name}, which {failure}; publish new records or change the "
            f"spec, or try the same again with `tunewheel dataset build --project {event.project}`"
        )

    def _rejected(
        self,
        event: Envelope[DatasetRequested],
        spec: ProjectSpec,
        basis: Basis,
        outcome: BuildOutcome,
        reasons: tuple[str, ...],
        *,
        held: str | None = None,
    ) -> Envelope[DatasetRejected]:
        data = DatasetRejected(
            project=event.project,
            spec_sha256=spec.sha256,
            training_sha256=spec.training_sha256,
            rows_sha256=outcome.rows_sha256,
            reasons=reasons,
            funnel=outcome.funnel,
            records_upto=event.data.records_upto,
            withdrawals_upto=dict(basis.withdrawals_upto),
            judged_upto=dict(basis.judged_upto) or None,
            held=held,
        )
        log.warning("dataset_rejected", project=event.project, reasons=reasons, held=held)
        return self._service.new(data, cause=event)


def _waits(manifest: DatasetManifest, held: tuple[str, ...], asked: DatasetRequested) -> tuple[str, ...]:
    """Return why a version waits for a person, and how to release it."""
    name = manifest.dataset_id
    how = (
        f"held: {name} waits for a person; look at `tunewheel dataset show {name}`, then publish it by "
        f"`tunewheel dataset build --project {manifest.project} --release {name}`, or correct the records"
    )
    if asked.release is not None:
        how = f"release: {asked.release} no longer follows from its records and the spec; {how}"
    return (how, *held)
