"""What curate does about each event, and which event it publishes as the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Any

import structlog
from tunewheel_contracts.erasures import Erasure, proof_of
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import (
    BuildReason,
    DatasetRequested,
    RecordIngested,
    RecordKind,
)
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.turns import TurnDecided
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested, ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.attempts import Attempts, AttemptsSpent
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.service import Delivery, Lease, Service
from tunewheel_runtime.slots import Slots
from tunewheel_runtime.view import LogReader, View
from tunewheel_turns.deciding import Step
from tunewheel_turns.dispatch import Dispatch, utc_now

from tunewheel_curate.builds.answering import Answer, Answering
from tunewheel_curate.builds.building import Builder, BuildFailed, BuildStopped, WorkerFailed
from tunewheel_curate.builds.log_state import LogState
from tunewheel_curate.builds.policy import Pending
from tunewheel_curate.labelling.counting import LabelCount
from tunewheel_curate.records.forgetting import finding_ref, forget, recall
from tunewheel_curate.records.log import MissingRecords, rows_of
from tunewheel_curate.records.table import RecordTable, ends_of

log = structlog.get_logger(__name__)

CatchUp = Callable[[], Awaitable[None]]
NO_INDEX = "retrieval.training needs passages, and the project has no index yet; start the index service"


class Curation:
    """Answers events from three things: the record table, the state folded from the log (``state``), and the
    answers to requests."""

    def __init__(
        self,
        service: Service,
        *,
        table: RecordTable,
        projects: View[ProjectDeclared],
        indexes: View[IndexVersioned],
        state: LogState,
        followed: LogReader,
        builder: Builder,
        missing: MissingRecords,
        attempts: Attempts,
        slots: Slots,
        backoff: Backoff,
        catch_up: CatchUp,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._service = service
        self._followed = followed
        self._builder = builder
        self._attempts = attempts
        self._slots = slots
        self._backoff = backoff
        self._catch_up = catch_up
        self._answering = Answering(
            service, table_url=table.url, state=state, followed=followed, builder=builder, missing=missing
        )
        self._turns = Dispatch(state.turns, LabelCount(table, state.erasures.of).count, clock=clock)
        self.table = table
        self.projects = projects
        self.indexes = indexes
        self.state = state
        self._recalled: set[str] = set()
        """The requests for erasure whose findings the table remembers."""

    async def keep(self, deliveries: Sequence[Delivery[RecordIngested]]) -> None:
        """Append records to the table, each once, and start the build worker: a build often follows."""
        rows, erasures = rows_of(deliveries), self.state.erasures.all()
        new = await asyncio.to_thread(self.table.append, rows, erasures=erasures)
        log.info("records_kept", delivered=len(deliveries), new=new)
        await self._builder.prepare()

    async def recall_erasures(self) -> list[Erasure]:
        """Let the table remember the erased records that stored findings name, each finding once. Return the
        erasures that have a finding.

        Raises:
            TransientError: the store is away.
        """
        asked = self.state.erasures.by_request()
        new = {name: erasure for name, erasure in asked.items() if name not in self._recalled}
        self._recalled |= await recall(self.table, self._service.store, new)
        return [erasure for name, erasure in asked.items() if name in self._recalled]

    async def turn_for(self, event: Envelope[DriftDetected]) -> Envelope[DatasetRequested] | None:
        """Return the request for a version if the alarm in ``event`` makes one due at once."""
        await self._followed.refresh()  # the replayed log may not hold this alarm yet
        return await self.request_for_drift(event.project)

    async def request_for_drift(self, project: str) -> Envelope[DatasetRequested] | None:
        """Return the request for a version if the open alarms of a project make one due.

        Raises:
            TransientError: the store is away.
        """
        declared = self.projects.get(project)
        if declared is None or self.state.history.waiting(project):
            return None
        spec = declared.data.spec
        if (await self._turns.decide(spec)).step is not Step.TURN:
            return None
        await self._followed.refresh()  # another replica may have asked meanwhile
        decision = await self._turns.decide(spec)
        if decision.step is not Step.TURN:
            return None
        alarm = self.state.turns.alarm(project, decision.alarms[0])
        return await self._request_once(
            alarm, BuildReason.DRIFT, name=decision.request, alarms=decision.alarms
        )

    def decision(self, project: str) -> TurnDecided | None:
        """Return the last decision of this process about a project's alarms; None: it made none yet."""
        return self._turns.decided(project)

    async def holds(self, project: str, reason: BuildReason) -> bool:
        """Return whether a version that is due because of records must wait for a turn, or for a request that
        itself waits for the project's first index."""
        declared = self.projects.get(project)
        if self.state.history.waiting(project):
            return True
        return declared is not None and await self._turns.hold(declared.data.spec, reason) is not None

    async def built_upto(self, project: str) -> dict[str, int]:
        """Return up to which offsets the log names a project's records in builds and requests, now."""
        await self._followed.refresh()
        return self.state.history.built_upto(project)

    def request_for_policy(
        self, project: str, reason: BuildReason, pending: Pending
    ) -> Envelope[DatasetRequested]:
        """Return the request for the build that the policy finds due. It is named by its records."""
        data = DatasetRequested(
            project=project, reason=reason, request=pending.request, records_upto=pending.upto
        )
        return self._service.new(self._with_index(data))

    async def requests_that_waited(self, project: str) -> list[Envelope[DatasetRequested]]:
        """Return new requests in place of those that waited for the project's first index, once it is there.

        Raises:
            TransientError: the store is away.
        """
        declared = self.projects.get(project)
        waiting = self.state.history.waiting(project)
        if declared is None or not waiting or self._lacks_index(project):
            return []
        return [await self._naming_records(event, declared.data.spec) for event in waiting]

    async def withdraw(self, event: Envelope[DocumentWithdrawn]) -> Envelope[DatasetRequested] | None:
        """Return the request for a version without the source; None if no version holds or may hold it."""
        await self._followed.refresh()
        if not await self._is_used(event.project, RecordKind(event.data.kind), event.data.document_id):
            return None
        # Withdrawing a republished document gives an event of the same id, so the version joins the name.
        latest = self.state.history.latest(event.project)
        name = event.id if latest is None else f"{event.id}.{latest.dataset_id}"
        return await self._request_once(event, BuildReason.COMMAND, name=name)

    async def erase(self, event: Envelope[ErasureRequested]) -> list[Envelope[Any]]:
        """Carry out an erasure. Return the proof and, if the newest version holds or may hold erased records,
        the request for a version without them. A version that waits for a person and holds some loses its
        rows: nothing was trained on it, and no release makes it again.

        Raises:
            TransientError: another writer was faster, or the store is away.
        """
        await self._followed.refresh()
        declared = self.projects.get(event.project)
        always = declared is not None and declared.data.spec.dataset.erase_versions
        history, held = self.state.history, self.state.history.held(event.project)
        found = await forget(
            event,
            self.state.erasures.asked_by(event),
            table=self.table,
            store=self._service.store,
            names=self._builder.pseudonyms(event.project),
            deletes=lambda name: always or name in held,
            warn=self._service.health.warn,
        )
        proof = proof_of(
            event.data,
            holder="curate",
            erased_by=self._service.name,
            records=found.records,
            dataset_ids=found.dataset_ids,
            deleted_dataset_ids=tuple(name for name in found.dataset_ids if always or name in held),
            model_ids=self.state.adapters_of(found.dataset_ids),
            finding=await finding_ref(event, self._service.store),
        )
        answers: list[Envelope[Any]] = [self._service.new(proof, cause=event)]
        latest = history.latest(event.project)
        unsure = found.records > 0 and history.is_building(event.project)
        if unsure or (latest and latest.dataset_id in found.dataset_ids):
            request = await self._request_once(event, BuildReason.COMMAND)
            answers += [request] if request is not None else []
        return answers

    async def answer(self, event: Envelope[DatasetRequested], lease: Lease) -> Envelope[Any] | None:
        """Return the event that answers a request; None if the log has the answer already.

        A request that names no records is answered by a request that names them. So every attempt at a build
        has the same records. An attempt begins once it has a slot, with what the log then says. After a
        failure it waits without a slot, so that other projects' builds go on.

        Raises:
            InvalidEvent: the person who asks is no operator of the project, or the project is not declared.
        """
        failed = 0
        while True:
            await self._followed.refresh()
            if event.data.records_upto is None or self._is_answered(event):
                return await self._answer(event, lease)
            try:
                async with self._slots.hold(event.project, lease.lost, job=event.id):
                    lease.check()
                    await self._followed.refresh()
                    return await self._answer(event, lease)
            except BuildFailed:
                await lease.pause(self._backoff.delay(failed))
                failed += 1

    def _is_answered(self, event: Envelope[DatasetRequested]) -> bool:
        # ``requests_that_waited`` answers a request that waits for an index
        return self.state.history.has_answered(event.id) or event.data.awaits_index

    async def _answer(self, event: Envelope[DatasetRequested], lease: Lease) -> Envelope[Any] | None:
        """Return the answer by the log as it was read last. Raises InvalidEvent; BuildFailed: an attempt
        failed that is not the last."""
        if self._is_answered(event):
            return None
        if event.data.records_upto is None:  # curate's own requests name their records
            await self._service.access.require(
                event.data.principal, Role.OPERATOR, event.project, field="principal"
            )
        declared = await self.projects.fresh(event.project)
        if declared is None:
            reason = f"{event.project!r} is not declared; declare its spec, then ask again"
            raise InvalidEvent(field="project", reason=reason)
        if unknown := ", ".join(declared.unknown):
            reason = f"{unknown}: a newer release wrote this part of the spec; upgrade curate, then ask again"
            return self._answering.reject(event, declared.data.spec, reason)
        if declared.data.spec.trains_with_passages:
            await self.indexes.fresh(event.project)
        # The log alone says what was answered: what is returned here may never get there.
        if event.data.records_upto is None or (event.data.index is None and self._lacks_index(event.project)):
            return await self._naming_records(event, declared.data.spec)
        return await self._built(event, declared.data.spec, lease)

    async def _built(self, event: Envelope[DatasetRequested], spec: ProjectSpec, lease: Lease) -> Answer:
        """Build, or reject the request if its attempts are spent. Raises BuildFailed."""
        newest = self.indexes.get(event.project)
        try:
            async with self._attempts.begin(event.id, spared=(BuildStopped, WorkerFailed, OSError)):
                return await self._answering.answer(
                    event, spec, stop=lease.lost, newest=newest.data if newest else None
                )
        except BuildStopped as error:
            raise lease.Lost(str(error)) from error
        except AttemptsSpent as error:
            return self._answering.reject(event, spec, f"build: {error}. Remove the cause, then ask again")

    async def _naming_records(
        self, event: Envelope[DatasetRequested], spec: ProjectSpec
    ) -> Envelope[DatasetRequested]:
        """Return the request that answers ``event`` and names the records to build from."""
        upto = self._released(event.data) or await self._records_on_the_log(event.project)
        alarms = event.data.alarm_ids
        if not event.data.awaits_index:  # a request that waited got its alarms before it began to wait
            alarms = alarms or self._turns.mended_by_command(spec)
        data = event.data.model_copy(update={"request": event.id, "records_upto": upto, "alarm_ids": alarms})
        return self._service.new(self._with_index(data), cause=event)

    def _released(self, asked: DatasetRequested) -> dict[str, int] | None:
        """Return the records of the version that a person releases; None: the request releases none.

        Raises:
            InvalidEvent: no version of that name waits.
        """
        if asked.release is None:
            return None
        held = self.state.history.held(asked.project).get(asked.release)
        if held is None:
            reason = (
                f"{asked.release!r} does not wait for a person; name the `held` of a dataset.rejected "
                "that is later than the newest version"
            )
            raise InvalidEvent(field="release", reason=reason)
        return held

    def _lacks_index(self, project: str) -> bool:
        """Return whether a project trains with passages and has no index yet."""
        declared = self.projects.get(project)
        wanted = declared is not None and declared.data.spec.trains_with_passages
        return wanted and self.indexes.get(project) is None

    def _with_index(self, data: DatasetRequested) -> DatasetRequested:
        """Return ``data`` with the newest index if the project trains with passages. Without an index the
        request waits for one (``awaits_index``) and names no records until then."""
        if self._lacks_index(data.project):
            log.warning("build_waits_for_index", project=data.project, reason=NO_INDEX)
            return data.model_copy(update={"records_upto": None, "awaits_index": True})
        declared, newest = self.projects.get(data.project), self.indexes.get(data.project)
        wanted = declared is not None and declared.data.spec.trains_with_passages
        index = newest.data if newest is not None and wanted else None
        named = {"index_id": index and index.index_id, "index": index and index.manifest}
        return data.model_copy(update=named | {"awaits_index": False})

    async def _records_on_the_log(self, project: str) -> dict[str, int]:
        # A build includes every record that was on the log before its request, also undelivered ones.
        await self._catch_up()
        return ends_of(await asyncio.to_thread(self.table.newer, project, {}, ("partition", "offset")))

    async def _is_used(self, project: str, kind: RecordKind, source_id: str) -> bool:
        history = self.state.history
        latest = history.latest(project)
        if history.is_building(project):
            return True
        return latest is not None and await self._answering.uses(latest, kind, source_id)

    async def _request_once(
        self,
        event: Envelope[Any],
        reason: BuildReason,
        *,
        name: str | None = None,
        alarms: tuple[str, ...] = (),
    ) -> Envelope[DatasetRequested] | None:
        """Return the request that ``event`` causes, for a version of the records on the log. None if it is on
        the log already: a second request would name later records.

        ``name`` identifies the request (default: the event's id). The version should resolve ``alarms``."""
        upto = await self._records_on_the_log(event.project)
        data = DatasetRequested(
            project=event.project,
            reason=reason,
            request=name or event.id,
            records_upto=upto,
            alarm_ids=alarms,
        )
        request = self._service.new(self._with_index(data), cause=event)
        return None if self.state.history.has_requested(event.project, request.id) else request
