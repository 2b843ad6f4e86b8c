"""Folds the scored traffic of the projects on this process's partitions, and publishes the events that
follow.

For each project, a batch ends with these steps in this order: the texts of new alarms are stored; the
checkpoint is created; its events are published. Then the offset is committed. After a kill, the next process
starts with the newest checkpoint and publishes its events again, under the same ids. See ``checkpoints.py``.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

import structlog
from tunewheel_contracts import topics
from tunewheel_contracts.erasures import erasure_of, place_of, proof_of
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.evaluation import ComparisonsRequested
from tunewheel_contracts.events.monitoring import InferenceScored, WindowJudged
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.deadletter import Warn
from tunewheel_runtime.service import Delivery

from tunewheel_monitor.alarms import Said
from tunewheel_monitor.asking import Questions, with_evidence, without_erased
from tunewheel_monitor.checkpoints import Checkpoint, Checkpoints
from tunewheel_monitor.detectors.novelty import Novelty, caution, lacks_encoder
from tunewheel_monitor.evidence import Evidence, Exhibits
from tunewheel_monitor.figures import evidence
from tunewheel_monitor.fold import Facts, fold, follow, tick
from tunewheel_monitor.knowledge import Knowledge
from tunewheel_monitor.metrics import DetectorGauges, Metrics
from tunewheel_monitor.pseudonym_keys import PseudonymKeys
from tunewheel_monitor.reference import Reference, References
from tunewheel_monitor.state import ProjectState, without

log = structlog.get_logger(__name__)
HOLDER = "monitor"
Outcome = tuple[Said, Envelope[InferenceScored] | None]
"""An event to publish, and the scored event that caused it; None: a deadline caused it."""
Items = Sequence[InferenceScored]
KEPT = 256
"""How many projects' states are kept in memory; the most recently used are kept."""


class Log(Protocol):
    """The part of a service that the watch writes through."""

    def new(
        self, data: Any, *, cause: Envelope[Any] | None = None, correlation_id: str | None = None
    ) -> Envelope[Any]: ...

    def handles(self, topic: TopicSpec, key: str) -> bool: ...

    async def publish_many(self, envelopes: Sequence[Envelope[Any]]) -> None: ...


@dataclass
class Watch:
    """Handles one batch, one tick or one erasure at a time."""

    log: Log
    warn: Warn
    knowledge: Knowledge
    references: References
    checkpoints: Checkpoints
    exhibits: Exhibits
    pseudonyms: PseudonymKeys
    metrics: Metrics
    _held: OrderedDict[str, Checkpoint] = field(default_factory=OrderedDict[str, Checkpoint])
    _next: dict[int, int] = field(default_factory=dict[int, int])
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _folded: tuple[str, float] = ("", 0.0)
    """The project that was folded last, and the age of its latest score then, in seconds."""

    def __post_init__(self) -> None:
        self.questions = Questions(self.log, self.knowledge, self.exhibits, self.metrics)
        self._detectors = DetectorGauges(self.metrics, self._is_here)
        self.metrics.gauge("fold.lag_seconds", "Age of the latest score when it was folded", self._lag)

    async def take(self, deliveries: Sequence[Delivery[InferenceScored]]) -> None:
        """Fold a batch. Repeating it after an error or a restart changes nothing.

        Raises:
            TransientError: the broker or the store is away, or another process has continued a project. Call
                again with the same batch.
        """
        async with self._lock:
            self._forget_old(deliveries)
            by_project: dict[str, list[Delivery[InferenceScored]]] = defaultdict(list)
            for delivery in deliveries:
                by_project[delivery.event.project].append(delivery)
            for project, some in by_project.items():
                await self._take(project, some)
            for delivery in deliveries:
                self._next[delivery.position.partition] = delivery.position.offset + 1

    async def tick(self, project: str, now: datetime | None = None) -> None:
        """Publish the events that follow from a project's deadlines. All its traffic must be folded.

        Raises:
            TransientError: see ``take``.
        """
        now = now or datetime.now(UTC)
        async with self._lock:
            spec = await self.knowledge.spec(project)
            if spec is None or not self.knowledge.awaits_a_clock(spec, now):
                return
            held = await self._load(project)
            facts = await self._facts(spec, held.state)
            follow(held.state, facts)
            if said := tick(held.state, project, facts, now):
                await self._settle(held, spec, [(one, None) for one in said])
            self._keep(held)

    async def forget(self, event: Envelope[ErasureRequested]) -> ErasureCompleted:
        """Delete what ``event`` erases from the texts of alarms and from the state, destroy the project's
        pseudonym key, and return the proof.

        Raises:
            TransientError: see ``take``.
        """
        project, erasure = event.project, erasure_of(event)
        async with self._lock:
            self.knowledge.erasures.apply(event)  # the log reader may not have read this event yet
            await self.pseudonyms.destroy(project)
            taken = await self.exhibits.taken(project, erasure)
            path, count = f"{place_of(project, event.id)}.{HOLDER}", sum(map(len, taken.values()))
            first = await self.exhibits.store.first(path, str(count).encode())
            held = await self._load(project)
            if held.number:
                # before the texts are deleted: only they say which completions are the person's
                names = frozenset[str]().union(*taken.values(), {erasure.source_id or ""})
                state = ProjectState.from_json(without(held.state.as_json(), names))
                if erasure.customer and state.version:  # nothing says whose the questions of a pool are
                    state.version.detectors.get(Novelty.name, {}).pop("asking", None)
                smaller = map(without_erased, state.alarms.values())
                events = [self.log.new(one, cause=event) for one in smaller if one is not None]
                held = Checkpoint(project, held.number + 1, state, events)
                await self.checkpoints.write(held)
                await self._publish(held)
                self._keep(held)
            await self.checkpoints.drop_before(project, held.number)
            for path, some in taken.items():
                await self.exhibits.empty(path, some)
        log.info("erased", erasure_id=event.data.erasure_id, texts=count)
        return proof_of(event.data, holder=HOLDER, erased_by=HOLDER, records=int(first))

    def _forget_old(self, deliveries: Sequence[Delivery[Any]]) -> None:
        """Drop the states of a partition that does not continue at the last offset: another process owned it
        since."""
        seen: set[int] = set()
        for partition, offset in ((d.position.partition, d.position.offset) for d in deliveries):
            if partition not in seen and self._next.get(partition) != offset:
                self._held.clear()
                self._detectors.projects.clear()
            seen.add(partition)

    async def _take(self, project: str, deliveries: Sequence[Delivery[InferenceScored]]) -> None:
        spec = await self.knowledge.spec(project)
        if spec is None or not self.knowledge.is_watched(spec):
            return  # do not read or write a state
        held = await self._load(project)
        offsets = held.state.offsets
        fresh = [d for d in deliveries if d.position.offset >= offsets.get(str(d.position.partition), 0)]
        if fresh:
            items = [delivery.event.data for delivery in fresh]
            generation = held.state.version.generation if held.state.version else 0
            await self.knowledge.learn(items, generation=generation)
            facts = await self._facts(spec, held.state, items)
            said = await asyncio.to_thread(_folded, held.state, fresh, facts)
            await self._settle(held, spec, said)
            self._count(held.state, items)
        self._keep(held)

    def _count(self, state: ProjectState, items: Items) -> None:
        self.metrics.add("scores.folded", len(items))
        for name, counted in (("windows.judged", state.windows), ("looks", state.looks)):
            for of, amount in counted.items():
                self.metrics.add(name, amount, of=of)
            counted.clear()
        self._folded = items[-1].project, (datetime.now(UTC) - items[-1].at).total_seconds()

    def _lag(self) -> float:
        project, seconds = self._folded
        return seconds if self._is_here(project) else 0.0

    def _is_here(self, project: str) -> bool:
        """Return whether this process folds the project's scores. Other states in memory are out of date."""
        return self.log.handles(topics.INFERENCE_SCORED, project)

    async def _facts(self, spec: ProjectSpec, state: ProjectState, items: Items = ()) -> Facts:
        project, production, version = spec.project, self.knowledge.production(spec.project), state.version
        reference: Reference | None = None
        dataset_id = production.dataset_id if production is not None and spec.drift.enabled else None
        settled = production is not None and version is not None and version.model_id == production.model_id
        begins = version is None or not settled or version.answers.differs(spec.drift)
        novelty = version.detectors.get(Novelty.name, {}) if version else {}
        if dataset_id is not None and (begins or lacks_encoder(novelty, items)):
            reference = await self.references.get(dataset_id)
        watched = {*state.trials["open"], *state.trials["passed"]}
        return Facts(
            spec=spec,
            production=production,
            coverage=reference.coverage.facts if reference else None,
            encoding=reference.encoding if reference else None,
            holdout=self.knowledge.holdout(project, production.model_id) if production else None,
            calibration=self.knowledge.calibration(project, production.model_id) if production else None,
            steps=self.knowledge.steps(project, watched),
            turns=self.knowledge.turns.open(project),
        )

    async def _settle(self, held: Checkpoint, spec: ProjectSpec, said: Sequence[Outcome]) -> None:
        """Store the project's checkpoint, then publish its events."""
        shown: dict[tuple[str, int], Evidence] = {}
        held.events = [await self._event(spec, one, cause, shown) for one, cause in said]
        held.number += 1
        await self.checkpoints.write(held)
        await self._publish(held)

    async def _event(
        self,
        spec: ProjectSpec,
        said: Said,
        cause: Envelope[Any] | None,
        shown: dict[tuple[str, int], Evidence],
    ) -> Envelope[Any]:
        data = said.data
        if isinstance(data, DriftDetected | LabelsRequested) and said.places:
            alarm_id = data.alarm_id or ""
            revision = data.revision if isinstance(data, LabelsRequested) else 1
            if (alarm_id, revision) not in shown:
                reference = await self.references.get(data.dataset_id)
                shown[alarm_id, revision] = await self.exhibits.keep(
                    spec,
                    alarm_id,
                    said.places,
                    words=reference.words if reference else {},
                    refresh=self.knowledge.refresh,
                    revision=revision,
                )
            data = with_evidence(data, shown[alarm_id, revision])
        elif isinstance(data, ComparisonsRequested):
            await self.exhibits.keep_pairs(spec, data, said, refresh=self.knowledge.refresh)
        if cause is None:
            return self.log.new(data, correlation_id=said.correlation_id)
        made = self.log.new(data, correlation_id=said.correlation_id or cause.correlation_id)
        return replace(made, causation_id=cause.data.scored)

    async def _load(self, project: str) -> Checkpoint:
        """Return the project's state and remove it from memory. ``_keep`` puts it back after a successful
        use."""
        held = self._held.pop(project, None)
        if held is None:
            held = await self.checkpoints.latest(project)
            if held.unreadable:
                self.metrics.add("checkpoints.unreadable")
                self.warn(f"checkpoint of {project}", held.unreadable)
            await self._publish(held)  # the process that wrote it may have died before it published
        return held

    def _keep(self, held: Checkpoint) -> None:
        self._held[held.project] = held
        self._detectors.projects[held.project] = list(held.state.alarms), evidence(held.state.figures)
        detectors = held.state.version.detectors if held.state.version else {}
        said = caution(detectors.get(Novelty.name, {}))
        self.warn(f"reference of {held.project}", said and f"{held.project}: {said}")
        while len(self._held) > KEPT:
            project, _ = self._held.popitem(last=False)
            del self._detectors.projects[project]

    async def _publish(self, held: Checkpoint) -> None:
        await self.log.publish_many(held.events)
        for event in held.events:
            tell = log.debug if isinstance(event.data, WindowJudged) else log.info
            tell(event.data.type, project=held.project, subject=event.data.ce_subject, event_id=event.id)
        held.events = ()


def _folded(
    state: ProjectState, deliveries: Sequence[Delivery[InferenceScored]], facts: Facts
) -> list[Outcome]:
    follow(state, facts)
    said: list[Outcome] = []
    for delivery in deliveries:
        item = delivery.event.data
        said += [(one, delivery.event) for one in fold(state, item, facts)]
        state.offsets[str(delivery.position.partition)] = delivery.position.offset + 1
    return said
