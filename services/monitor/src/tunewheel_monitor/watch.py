"""What the monitor does with completions and ratings: sort them into windows and trials, and judge those.

Nothing is lost or said twice by a crash. A window's record (see ``records``) is created before its drift is
published, and both before the offset is committed; on start, everything between the newest record and the
committed offset is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog
from tunewheel_contracts.erasures import place_of, proof_of
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.production import RolloutJudged
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.service import Delivery

from tunewheel_monitor.judging import DETECTORS, Judge
from tunewheel_monitor.knowledge import Knowledge
from tunewheel_monitor.marks import Marks
from tunewheel_monitor.records import StreamName, WindowRecord
from tunewheel_monitor.reference import References
from tunewheel_monitor.rollout import Trial, Verdict, judge
from tunewheel_monitor.sorting import Sorter, StreamKey
from tunewheel_monitor.windows import Silence, Stream, Window

log = structlog.get_logger(__name__)
HOLDER = "monitor"


class Log(Protocol):
    """The part of a service that the watch writes through."""

    def new(
        self, data: Any, *, cause: Envelope[Any] | None = None, correlation_id: str | None = None
    ) -> Envelope[Any]: ...

    async def publish_many(self, envelopes: Sequence[Envelope[Any]]) -> None: ...


@dataclass
class Watch:
    """Takes deliveries in any number of batches and topics, one batch at a time."""

    log: Log
    knowledge: Knowledge
    sorter: Sorter
    references: References
    judge_window: Judge
    marks: Marks

    def __post_init__(self) -> None:
        self._lock = asyncio.Lock()

    async def start(self) -> None:
        """Bring back what the last process knew; publish what it recorded and did not come to say."""
        async with self._lock:
            self.knowledge.recount()
            for record in await self.sorter.open_all():
                await self._say(self._without_erased(record))
            await self.sorter.records.strip_earlier()
            await self.marks.catch_up(self.sorter.beginnings(), self.sorter.take)
            await self._settle()

    async def take(self, deliveries: Sequence[Delivery[Any]]) -> None:
        """Handle a batch; repeating it, after an error or a restart, changes nothing.

        Raises:
            TransientError: the broker or the store is away; call again with the same batch.
        """
        async with self._lock:
            for delivery in deliveries:
                await self.marks.take_missing_before(delivery.position, self._take)
                await self._take(delivery)
            await self._settle()

    async def forget(self, event: Envelope[ErasureRequested]) -> ErasureCompleted:
        """Show nothing of what ``event`` erases in any drift from here on; return the proof. Closed windows
        hold no text; what their drift showed stays on ``drift.detected`` until its retention ends.

        Raises:
            TransientError: the broker or the store is away.
        """
        async with self._lock:
            waiting = [
                name
                for (project, _), stream in self.sorter.streams.items()
                if project == event.project
                for name in await self.sorter.erased(project, stream.pending)
            ]
            path = f"{place_of(event.project, event.id)}.{HOLDER}"
            first = await self.sorter.records.first(path, str(len(waiting)).encode())
        log.info("erased", erasure_id=event.data.erasure_id, completions=len(waiting))
        return proof_of(event.data, holder=HOLDER, erased_by=HOLDER, records=int(first))

    async def _take(self, delivery: Delivery[Any]) -> None:
        if self.marks.is_new(delivery.position):
            await self.sorter.take(delivery)
            self.marks.advance(delivery.position)

    async def _settle(self) -> None:
        for key, stream in list(self.sorter.streams.items()):
            while (window := self._full(key, stream)) is not None:
                await self._close(key, stream, window)
        for trial in list(self.knowledge.trials.values()):
            await self._judge_trial(trial)

    def _full(self, key: StreamKey, stream: Stream) -> Window | None:
        spec = self.sorter.spec(stream.project)
        return stream.full(spec.drift.window) if spec is not None else None

    async def _close(self, key: StreamKey, stream: Stream, window: Window) -> None:
        spec = self.sorter.spec(stream.project)
        assert spec is not None
        record = await self._judged(key[1], stream, window, spec)
        await self.sorter.records.create(record)
        await self._say(record)
        stream.close(window, silence=Silence(record.silence), baseline=record.baseline)

    async def _judged(
        self, name: StreamName, stream: Stream, window: Window, spec: ProjectSpec
    ) -> WindowRecord:
        wants_input = "input" in DETECTORS[name] and "input" in spec.drift.detectors
        model_id = window.items[-1].model_id
        return await asyncio.to_thread(
            self.judge_window,
            stream,
            name,
            window,
            spec.drift,
            reference=await self.references.get(stream.dataset_id) if wants_input else None,
            measured=self.knowledge.holdout_validity(stream.project, model_id)
            if name == "completions"
            else None,
            erased=await self.sorter.erased(stream.project, window.items),
        )

    def _without_erased(self, record: WindowRecord) -> WindowRecord:
        """Return what a dead process recorded, as it may be said now. The record does not know who asked: in
        doubt no text is shown."""
        since = record.window.started_at
        asked = any(erasure.until >= since for erasure in self.knowledge.erasures.of(record.project))
        return record.without_excerpts() if asked else record

    async def _say(self, record: WindowRecord) -> None:
        """Publish the drift in ``record``, except what is on the log already; excerpts stay there alone."""
        if record.said:
            return
        made = [self.log.new(data, correlation_id=record.correlation_id) for data in record.detections]
        told = [replace(event, causation_id=record.cause_id) for event in made]
        await self.log.publish_many([event for event in told if event.id not in self.knowledge.said])
        self.knowledge.said.update(event.id for event in told)
        if record.detections:
            await self.sorter.records.keep_told(record)
        for detector in record.not_measured:
            log.warning(
                "drift_not_measured",
                project=record.project,
                window=record.number,
                detector=detector,
                reason="serving.log leaves the texts out that it compares",
            )
        for finding in record.findings:
            log.info(
                "window_judged",
                project=record.project,
                dataset_id=record.dataset_id,
                window=record.number,
                **finding.model_dump(),
            )

    async def _judge_trial(self, trial: Trial) -> None:
        spec = self.sorter.spec(trial.project)
        verdict = judge(trial, spec.rollout) if spec is not None else None
        if verdict is None:
            return
        cause = self.sorter.last_counted(trial)
        data = self._judgement(trial, verdict)
        await self.log.publish_many([self.log.new(data, cause=cause, correlation_id=trial.correlation_id)])
        self.knowledge.close_trial(trial.project, trial.model_id, trial.stage)
        log.info("rollout_judged", model_id=trial.model_id, stage=trial.stage, verdict=verdict.verdict)

    def _judgement(self, trial: Trial, verdict: Verdict) -> RolloutJudged:
        return RolloutJudged(
            project=trial.project,
            model_id=trial.model_id,
            stage=trial.stage,
            generation=self.sorter.generation(trial.project),
            verdict=verdict.verdict,
            requests=trial.candidate.requests,
            candidate=trial.candidate.figures(),
            champion=trial.champion.figures(),
            reasons=verdict.reasons,
        )
