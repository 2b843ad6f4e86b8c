"""Checks regularly whether a version is due: because of new records, or because of open alarms.

Each check looks at the whole table and history, not at single events. So nothing is lost by a restart, a
rebalance, or a project that is declared after its records. The table can also stop growing because the
replica that appends records is busy or stalled. So a project counts as silent only once the table holds
all its records on the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import structlog
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_contracts.events.turns import TurnDecided
from tunewheel_runtime.service import Service
from tunewheel_runtime.waiting import end_all

from tunewheel_curate.builds.policy import due, most_pending, pending_records
from tunewheel_curate.curation import Curation
from tunewheel_curate.records.arrivals import Arrivals, Arrived
from tunewheel_curate.records.log import ReadBacklog

log = structlog.get_logger(__name__)
TELL_AGAIN_SECONDS = 60.0
"""Publish a decision again after the log has contradicted it for so long: the replica that published the
other decision may be gone."""


class Watch:
    """The background task that requests the builds that are due. It also merges the table's files."""

    def __init__(
        self,
        service: Service,
        curation: Curation,
        *,
        seconds: float,
        compact_files: int,
        read_backlog: ReadBacklog,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._service = service
        self._curation = curation
        self._seconds = seconds
        self._compact_files = compact_files
        self._read_backlog = read_backlog
        self._clock = clock
        self._version: int | None = None
        self._arriving = Arrivals(curation.table)
        self._arrivals: dict[str, Arrived] = {}
        self._counted: dict[str, tuple[Any, int, bool]] = {}
        """By project: what its pending records were counted from, how many they are at most, and whether they
        are as many."""
        self._last_arrival: dict[str, float] = {}
        self._judged: dict[str, dict[str, int]] = {}
        """By project: the end of the decisions about quarantined records when they were last looked at."""
        self._awaited: dict[str, Mapping[int, int]] = {}
        """By project that seems silent: the end of the log, by partition, when it first seemed so."""
        self._silent: set[str] = set()
        """Projects whose records before the end in ``_awaited`` are all in the table."""
        self._told: dict[str, TurnDecided] = {}
        """By project: the latest decision that this process read from the log or published."""
        self._contradicted: dict[str, float] = {}
        """By project: since when the log holds another decision than the one in ``_told``."""
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="policy-watch")

    async def stop(self) -> None:
        await end_all(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self.look()
            except TransientError as error:
                log.warning("policy_delayed", error=str(error))
            except Exception as error:
                self._service.fail(error)
                return
            await asyncio.sleep(self._seconds)

    async def look(self) -> None:
        """Read new records, request the builds that are due, and publish changed decisions about alarms."""
        await self._read_arrivals()
        for project in self._curation.state.history.projects_waiting():
            for request in await self._curation.requests_that_waited(project):
                await self._ask(request)
        for project in self._curation.state.alarmed():
            request = await self._curation.request_for_drift(project)
            if request is not None:
                await self._ask(request)
            await self._tell(project)
        for project, (arrivals, _) in self._arrivals.items():
            declared = self._curation.projects.get(project)
            if declared is None:
                continue
            dataset = declared.data.spec.dataset
            covered = self._curation.state.history.built_upto(project)
            options: dict[str, Any] = {
                "documents": dataset.formats.documents.enabled,
                "ratings": dataset.ratings,
                "corrections": dataset.corrections != "wait",
                "released": self._released(project),
                "withdrawals": tuple(self._curation.state.withdrawals.of(project)),
            }
            count = partial(pending_records, arrivals, covered, **options)
            # The version tells apart what arrived: to compare two frames takes as long as to count one.
            counted_from = (self._version, covered, options)
            if self._counted.get(project, (None,))[0] != counted_from:
                most = most_pending(arrivals, covered, options["released"])
                self._counted[project] = counted_from, most, False
            quiet = self._clock() - self._last_arrival[project]
            _, most, is_exact = self._counted[project]
            reason = due(dataset.build, count=most, quiet_seconds=quiet)
            if reason is not None and not is_exact:
                self._counted[project] = counted_from, (await asyncio.to_thread(count)).count, True
                reason = due(dataset.build, count=self._counted[project][1], quiet_seconds=quiet)
            if reason is None or await self._curation.holds(project, reason):
                continue
            if reason is BuildReason.QUIET and not await self._is_silent(project):
                continue
            pending = await asyncio.to_thread(count)
            if await self._curation.built_upto(project) != covered:
                continue  # another request names these records; the next look counts what is left
            await self._ask(self._curation.request_for_policy(project, reason, pending))
            self._hear(project)

    def _released(self, project: str) -> dict[str, str]:
        """Return the records that a person released since the last build, and where. None while one is under
        way: its answer will say whether it has them."""
        history, judgements = self._curation.state.history, self._curation.state.judgements
        judged = judgements.upto(project)
        if judged != self._judged.get(project, {}):
            self._judged[project], self._last_arrival[project] = judged, self._clock()
        if history.is_building(project):
            return {}
        return judgements.released_since(project, history.judged_upto(project))

    async def _ask(self, request: Envelope[DatasetRequested]) -> None:
        asked = request.data
        log.info("dataset_requested", project=asked.project, reason=asked.reason, request=asked.request)
        await self._service.publish(request)
        self._curation.state.requested(request)

    async def _tell(self, project: str) -> None:
        """Publish the decision about a project's alarms unless the log's latest decision is the same.

        A decision that this process published before is published again only after the log has contradicted
        it for ``TELL_AGAIN_SECONDS``. So replicas that decide differently do not flood the log, and a
        decision of a replica that is gone does not stay the latest.
        """
        decided = self._curation.decision(project)
        if decided is None:
            return
        if decided != self._curation.state.decision(project):
            if decided == self._told.get(project):
                since = self._contradicted.setdefault(project, self._clock())
                if self._clock() - since < TELL_AGAIN_SECONDS:
                    return
            log.info(
                "turn_decided", project=project, decision=decided.step, evidence=decided.evidence,
                alarms=decided.alarm_ids, until=decided.until.isoformat() if decided.until else None,
            )  # fmt: skip
            event = self._service.new(decided)
            await self._service.publish(event)
            self._curation.state.decided(event)
        self._contradicted.pop(project, None)
        self._told[project] = decided

    async def _is_silent(self, project: str) -> bool:
        """Return whether the table held all records of ``project`` when it was read for this check."""
        if project in self._silent:
            return True
        backlog = await self._read_backlog()
        if backlog.has_kept(self._awaited.setdefault(project, backlog.ends)):
            self._silent.add(project)  # records appended since this check began are read by the next one
        return False

    def _hear(self, project: str) -> None:
        self._awaited.pop(project, None)
        self._silent.discard(project)

    async def _sweep(self) -> None:
        """Erase rows that another replica appended before it had read their erasure.

        An erasure whose finding is not stored yet is left alone: without its rows the finding, and so the
        proof, would name neither records nor versions.
        """
        if not (erasures := await self._curation.recall_erasures()):
            return
        rows = await asyncio.to_thread(self._curation.table.held_subjects, erasures)
        if not rows.is_empty():
            await asyncio.to_thread(self._curation.table.erase, rows)
            log.info("erased_late", rows=rows.height)

    async def _read_arrivals(self) -> None:
        table = self._curation.table
        version = await asyncio.to_thread(table.version)
        if version is None or version == self._version:
            return
        await self._sweep()
        arrivals = await asyncio.to_thread(self._arriving.look)
        for project, arrived in arrivals.items():
            before = self._arrivals.get(project)
            # Ratings arrive all day, so a build must not wait for silence among them.
            if before is None or before.written != arrived.written:
                self._last_arrival[project] = self._clock()
                self._hear(project)
        self._arrivals = arrivals  # without projects of which all was erased
        self._version = version
        with contextlib.suppress(TransientError):
            await asyncio.to_thread(table.compact, min_files=self._compact_files)
