"""Curate's answers: which event follows from what happened."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import structlog
from tunewheel_contracts.erasures import proof_of
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import (
    BuildReason,
    DatasetRequested,
    RecordIngested,
    RecordKind,
)
from tunewheel_contracts.events.monitoring import TurnDecided
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested, ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.attempts import Attempts, AttemptsSpent
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.service import Delivery, Lease, Service
from tunewheel_runtime.view import LogReader, View

from tunewheel_curate.builds.building import Builder, BuildFailed, BuildStopped, WorkerFailed
from tunewheel_curate.builds.known import Known
from tunewheel_curate.builds.making import Answer, Maker
from tunewheel_curate.builds.policy import Pending
from tunewheel_curate.records.arrivals import rows_of
from tunewheel_curate.records.forgetting import finding_ref, forget
from tunewheel_curate.records.missing import MissingRecords
from tunewheel_curate.records.table import RecordTable, ends_of
from tunewheel_curate.turns.deciding import Step
from tunewheel_curate.turns.dispatch import Dispatch, utc_now
from tunewheel_curate.turns.labelling import LabelCount

log = structlog.get_logger(__name__)

CatchUp = Callable[[], Awaitable[None]]
NO_INDEX = "retrieval.training wants passages, and there is no index yet; see that the index service runs"


class Curation:
    """The record table, what is known from the log, and the maker of versions of one service."""

    def __init__(
        self,
        service: Service,
        *,
        table: RecordTable,
        projects: View[ProjectDeclared],
        indexes: View[IndexVersioned],
        known: Known,
        followed: LogReader,
        builder: Builder,
        missing: MissingRecords,
        attempts: Attempts,
        backoff: Backoff,
        catch_up: CatchUp,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._service = service
        self._followed = followed
        self._builder = builder
        self._attempts = attempts
        self._backoff = backoff
        self._catch_up = catch_up
        self._maker = Maker(
            service, table_url=table.url, known=known, followed=followed, builder=builder, missing=missing
        )
        self._turns = Dispatch(known.turns, LabelCount(table, known.erasures.of), clock=clock)
        self.table = table
        self.projects = projects
        self.indexes = indexes
        self.known = known

    async def keep(self, deliveries: Sequence[Delivery[RecordIngested]]) -> None:
        """Append records to the table, each once; a build can be expected soon after."""
        rows, erasures = rows_of(deliveries), self.known.erasures.all()
        new = await asyncio.to_thread(self.table.append, rows, erasures=erasures)
        log.info("records_kept", delivered=len(deliveries), new=new)
        await self._builder.prepare()

    async def turn_for(self, event: Envelope[DriftDetected]) -> Envelope[DatasetRequested] | None:
        """Ask for the turn that an alarm leads to, where one is due at once."""
        await self._followed.refresh()  # or the alarm itself may not be known yet
        return await self.request_for_drift(event.project)

    async def request_for_drift(self, project: str) -> Envelope[DatasetRequested] | None:
        """Ask for the turn that the open alarms of a project lead to, where one is due.

        Raises:
            TransientError: the store is away.
        """
        declared = self.projects.get(project)
        if declared is None or self.known.history.waiting(project):
            return None
        spec = declared.data.spec
        if (await self._turns.decide(spec)).step is not Step.TURN:
            return None
        await self._followed.refresh()  # another replica may have asked meanwhile
        decision = await self._turns.decide(spec)
        if decision.step is not Step.TURN:
            return None
        alarm = self.known.turns.alarm(project, decision.alarms[0])
        return await self._request_once(
            alarm, BuildReason.DRIFT, name=decision.request, alarms=decision.alarms
        )

    def decision(self, project: str) -> TurnDecided | None:
        """Return what was decided last about a project's alarms; None: nothing yet."""
        return self._turns.decided(project)

    async def holds(self, project: str, reason: BuildReason) -> bool:
        """Tell whether a version that records ask for has to wait: for a turn, or for one that waits too."""
        declared = self.projects.get(project)
        if self.known.history.waiting(project):
            return True
        return declared is not None and await self._turns.hold(declared.data.spec, reason) is not None

    def request_for_policy(
        self, project: str, reason: BuildReason, pending: Pending
    ) -> Envelope[DatasetRequested]:
        """Ask for the build that the policy finds due, by the records it is about."""
        data = DatasetRequested(
            project=project, reason=reason, request=pending.request, records_upto=pending.upto
        )
        return self._service.new(self._with_index(data))

    async def requests_that_waited(self, project: str) -> list[Envelope[DatasetRequested]]:
        """Return what answers the requests that waited for the project's first index, once there is one, or
        the spec asks for none any more.

        Raises:
            TransientError: the store is away.
        """
        declared = self.projects.get(project)
        waiting = self.known.history.waiting(project)
        if declared is None or not waiting or self._lacks_index(project):
            return []
        return [await self._naming_records(event, declared.data.spec) for event in waiting]

    async def withdraw(self, event: Envelope[DocumentWithdrawn]) -> Envelope[DatasetRequested] | None:
        """Ask for a version without a document where the newest one, or one being built, may hold it."""
        await self._followed.refresh()
        if not await self._is_used(event.project, RecordKind.DOCUMENT, event.data.document_id):
            return None
        # A document that was published again is withdrawn again by an event of the same id.
        latest = self.known.history.latest(event.project)
        name = event.id if latest is None else f"{event.id}.{latest.dataset_id}"
        return await self._request_once(event, BuildReason.COMMAND, name=name)

    async def erase(self, event: Envelope[ErasureRequested]) -> list[Envelope[Any]]:
        """Carry an erasure out; answer with the proof, and where needed ask for a version without the erased.

        Raises:
            TransientError: another writer was faster, or the store is away.
        """
        await self._followed.refresh()
        declared = self.projects.get(event.project)
        delete = declared is not None and declared.data.spec.dataset.erase_versions
        found = await forget(
            event,
            self.known.erasures.asked_by(event),
            table=self.table,
            store=self._service.store,
            names=self._builder.pseudonyms(event.project),
            delete_versions=delete,
        )
        proof = proof_of(
            event.data,
            holder="curate",
            erased_by=self._service.name,
            records=found.records,
            dataset_ids=found.dataset_ids,
            deleted_dataset_ids=found.dataset_ids if delete else (),
            model_ids=self.known.adapters_of(found.dataset_ids),
            finding=await finding_ref(event, self._service.store),
        )
        answers: list[Envelope[Any]] = [self._service.new(proof, cause=event)]
        latest = self.known.history.latest(event.project)
        if latest is not None and latest.dataset_id in found.dataset_ids:
            request = await self._request_once(event, BuildReason.COMMAND)
            answers += [request] if request is not None else []
        return answers

    async def answer(self, event: Envelope[DatasetRequested], lease: Lease) -> Envelope[Any] | None:
        """Return the event that answers a request; None where the log has the answer already.

        A request that names no records is answered by one that does: whatever happens from there on,
        every attempt builds from the same records.

        Raises:
            InvalidEvent: a person asks who may not, or the project is not declared.
        """
        await self._followed.refresh()
        if self.known.history.has_answered(event.id) or event.data.awaits_index:
            return None  # ``requests_that_waited`` answers one that waits
        if event.data.records_upto is None:  # curate's own requests name their records
            await self._service.access.require(
                event.data.principal, Role.OPERATOR, event.project, field="principal"
            )
        declared = await self.projects.fresh(event.project)
        if declared is None:
            reason = f"{event.project!r} is not declared; declare its spec, then ask again"
            raise InvalidEvent(field="project", reason=reason)
        if declared.data.spec.trains_with_passages:
            await self.indexes.fresh(event.project)
        answer: Envelope[Any]
        if event.data.records_upto is None or (event.data.index is None and self._lacks_index(event.project)):
            answer = await self._naming_records(event, declared.data.spec)
        else:
            answer = await self._built(event, declared.data.spec, lease)
        self.known.requested(answer)
        return answer

    async def _built(self, event: Envelope[DatasetRequested], spec: ProjectSpec, lease: Lease) -> Answer:
        """Build until an attempt ends well; reject the request once it has had all its attempts."""
        failed = 0
        while True:
            newest = self.indexes.get(event.project)
            try:
                async with self._attempts.begin(event.id, spared=(BuildStopped, WorkerFailed, OSError)):
                    return await self._maker.answer(
                        event, spec, stop=lease.lost, newest=newest and newest.data
                    )
            except BuildStopped as error:
                raise lease.Lost(str(error)) from error
            except AttemptsSpent as error:
                return self._maker.reject(event, spec, f"build: {error}. Mend that, then ask again")
            except BuildFailed:
                await lease.pause(self._backoff.delay(failed))
                failed += 1

    async def _naming_records(
        self, event: Envelope[DatasetRequested], spec: ProjectSpec
    ) -> Envelope[DatasetRequested]:
        """Return the request that answers ``event`` and names what to build from."""
        upto = await self._records_on_the_log(event.project)
        alarms = event.data.alarm_ids
        if not event.data.awaits_index:  # one that waited was asked for before, by whom and why stands in it
            alarms = alarms or self._turns.mended_by_command(spec)
        data = event.data.model_copy(update={"request": event.id, "records_upto": upto, "alarm_ids": alarms})
        return self._service.new(self._with_index(data), cause=event)

    def _lacks_index(self, project: str) -> bool:
        """Tell whether a project trains with passages and has no index yet."""
        declared = self.projects.get(project)
        wanted = declared is not None and declared.data.spec.trains_with_passages
        return wanted and self.indexes.get(project) is None

    def _with_index(self, data: DatasetRequested) -> DatasetRequested:
        """Return ``data`` with the newest index where the project trains with passages. Where there is none
        yet, the request waits for one, and names no records until then."""
        if self._lacks_index(data.project):
            log.warning("build_waits_for_index", project=data.project, reason=NO_INDEX)
            return data.model_copy(update={"records_upto": None, "awaits_index": True})
        declared, newest = self.projects.get(data.project), self.indexes.get(data.project)
        wanted = declared is not None and declared.data.spec.trains_with_passages
        index = newest.data if newest is not None and wanted else None
        named = {"index_id": index and index.index_id, "index": index and index.manifest}
        return data.model_copy(update=named | {"awaits_index": False})

    async def _records_on_the_log(self, project: str) -> dict[str, int]:
        # Records that were on the log before the request are part of it, delivered to us or not.
        await self._catch_up()
        arrivals = await asyncio.to_thread(self.table.arrivals)
        return ends_of(arrivals.filter(arrivals["project"] == project))

    async def _is_used(self, project: str, kind: RecordKind, source_id: str) -> bool:
        history = self.known.history
        latest = history.latest(project)
        if history.is_building(project):
            return True
        return latest is not None and await self._maker.uses(latest, kind, source_id)

    async def _request_once(
        self,
        event: Envelope[Any],
        reason: BuildReason,
        *,
        name: str | None = None,
        alarms: tuple[str, ...] = (),
    ) -> Envelope[DatasetRequested] | None:
        """Return the request that ``event`` causes, for a version of the records on the log. ``name`` tells
        it from others, by default the event's id; ``alarms`` are those that the version is to mend.

        None where the request is on the log already: a second one would name later records."""
        upto = await self._records_on_the_log(event.project)
        data = DatasetRequested(
            project=event.project,
            reason=reason,
            request=name or event.id,
            records_upto=upto,
            alarm_ids=alarms,
        )
        request = self._service.new(self._with_index(data), cause=event)
        return None if self.known.history.has_requested(event.project, request.id) else request
