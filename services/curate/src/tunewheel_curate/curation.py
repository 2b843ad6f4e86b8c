"""Curate's answers: which event follows from a request, and the artifacts behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import structlog
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import (
    BuildReason,
    DatasetRejected,
    DatasetRequested,
    DatasetVersioned,
    RecordIngested,
)
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.service import Delivery, Lease, Service
from tunewheel_runtime.store import ArtifactConflict
from tunewheel_runtime.view import LogReader, View

from tunewheel_curate.arrivals import rows_of
from tunewheel_curate.building import Builder, BuildStopped
from tunewheel_curate.history import History
from tunewheel_curate.policy import Pending
from tunewheel_curate.records import RecordTable, ends_of
from tunewheel_curate.versioning import manifest_ref
from tunewheel_curate.worker import BuildOrder, BuildOutcome

log = structlog.get_logger(__name__)


class Curation:
    """The record table, the history and the builder of one service, and what they add up to."""

    def __init__(
        self,
        service: Service,
        *,
        table: RecordTable,
        projects: View[ProjectDeclared],
        history: History,
        followed: LogReader,
        builder: Builder,
    ) -> None:
        self._service = service
        self._followed = followed
        self.table = table
        self.projects = projects
        self.history = history
        self.builder = builder

    async def keep(self, deliveries: Sequence[Delivery[RecordIngested]]) -> None:
        """Append records to the table, each once; a build can be expected soon after."""
        rows = rows_of(deliveries)
        new = await asyncio.to_thread(self.table.append, rows)
        log.info("records_kept", delivered=len(deliveries), new=new)
        await self.builder.prepare()

    def request_for_drift(self, event: Envelope[DriftDetected]) -> Envelope[DatasetRequested] | None:
        """Ask for a rebuild where the project's spec wants one after drift."""
        declared = self.projects.get(event.project)
        if declared is None or not declared.data.spec.drift.rebuild:
            return None
        data = DatasetRequested(project=event.project, reason=BuildReason.DRIFT, request=event.id)
        return self._service.new(data, cause=event)

    def request_for_policy(
        self, project: str, reason: BuildReason, pending: Pending
    ) -> Envelope[DatasetRequested]:
        """Ask for the build that the policy finds due, by the records it is about."""
        data = DatasetRequested(
            project=project, reason=reason, request=pending.request, records_upto=pending.upto
        )
        return self._service.new(data)

    async def answer(self, event: Envelope[DatasetRequested], lease: Lease) -> Envelope[Any] | None:
        """Return the event that answers a request; None where the log has the answer already.

        A request that names no records is answered by one that does: whatever happens from there on,
        every attempt builds from the same records.

        Raises:
            InvalidEvent: the project is not declared.
        """
        await self._followed.refresh()
        if self.history.has_answered(event.id):
            return None
        declared = await self.projects.fresh(event.project)
        if declared is None:
            reason = f"{event.project!r} is not declared; declare its spec, then ask again"
            raise InvalidEvent(field="project", reason=reason)
        if event.data.records_upto is None:
            answer = await self._naming_records(event)
        else:
            answer = await self._build(event, declared.data.spec, lease)
        self.history.apply(answer)
        return answer

    async def _naming_records(self, event: Envelope[DatasetRequested]) -> Envelope[DatasetRequested]:
        arrivals = await asyncio.to_thread(self.table.arrivals)
        upto = ends_of(arrivals.filter(arrivals["project"] == event.project))
        data = event.data.model_copy(update={"request": event.id, "records_upto": upto})
        return self._service.new(data, cause=event)

    async def _build(
        self, event: Envelope[DatasetRequested], spec: ProjectSpec, lease: Lease
    ) -> Envelope[Any]:
        upto = event.data.records_upto or {}
        order = BuildOrder(table_url=self.table.url, spec=spec, records_upto=upto, folder="")
        try:
            async with self.builder.build(order, stop=lease.lost) as (outcome, folder):
                return await self._publishable(event, spec, outcome, folder)
        except BuildStopped as error:
            raise lease.Lost(str(error)) from error

    async def _publishable(
        self, event: Envelope[DatasetRequested], spec: ProjectSpec, outcome: BuildOutcome, folder: Path
    ) -> Envelope[Any]:
        manifest = outcome.manifest
        if manifest is None:
            return self._rejected(event, spec, outcome, outcome.rejections)
        if self.history.has_dataset(manifest.dataset_id):
            unchanged = f"records: nothing changed since {manifest.dataset_id}; publish new records first"
            return self._rejected(event, spec, outcome, (unchanged,))
        manifest, ref = await self._store(manifest, folder)
        data = DatasetVersioned(
            project=event.project,
            dataset_id=manifest.dataset_id,
            manifest=ref,
            spec_sha256=manifest.spec_sha256,
            criteria_sha256=manifest.criteria_sha256,
            base_model=manifest.spec.base_model,
            counts=manifest.counts,
            funnel=manifest.funnel,
            reason=event.data.reason,
            records_upto=event.data.records_upto,
        )
        log.info("dataset_versioned", dataset_id=manifest.dataset_id, **manifest.counts.model_dump())
        return self._service.new(data, cause=event, correlation_id=f"turn-{manifest.dataset_id}")

    def _rejected(
        self,
        event: Envelope[DatasetRequested],
        spec: ProjectSpec,
        outcome: BuildOutcome,
        reasons: tuple[str, ...],
    ) -> Envelope[DatasetRejected]:
        data = DatasetRejected(
            project=event.project,
            spec_sha256=spec.sha256,
            rows_sha256=outcome.rows_sha256,
            reasons=reasons,
            funnel=outcome.funnel,
            records_upto=event.data.records_upto,
        )
        log.warning("dataset_rejected", project=event.project, reasons=reasons)
        return self._service.new(data, cause=event)

    async def _store(self, manifest: DatasetManifest, folder: Path) -> tuple[DatasetManifest, ArtifactRef]:
        """Put the version's files; a version that lies there already is left as it is."""
        store, prefix = self._service.store, f"datasets/{manifest.dataset_id}"
        try:
            refs = await store.put_directory(prefix, folder)
            return manifest, next(ref for ref in refs if ref.path == f"{prefix}/manifest.json")
        except ArtifactConflict:
            # The same rows reached by other records (say, of a log since deleted): the first version stays.
            data = await store.read(f"{prefix}/manifest.json")
            if data is None:
                raise
            existing = DatasetManifest.model_validate_json(data)
            if existing.rows_sha256 != manifest.rows_sha256:
                raise
            return existing, manifest_ref(existing, data)
