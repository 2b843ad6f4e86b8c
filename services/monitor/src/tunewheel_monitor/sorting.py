"""Which window stream and which trial a completion or a rating belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.events.lifecycle import ServingDesired
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.upstream import FeedbackReceived, ProjectDeclared
from tunewheel_contracts.formats.serving import Route, RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_outputs.form import AnswerForm
from tunewheel_outputs.texts import said_before
from tunewheel_runtime.service import Delivery

from tunewheel_monitor.judging import DETECTORS, EXCERPT
from tunewheel_monitor.knowledge import Knowledge
from tunewheel_monitor.log_ranges import Offsets
from tunewheel_monitor.records import StreamName, WindowRecord, WindowRecords
from tunewheel_monitor.reference import asked
from tunewheel_monitor.rollout import Trial
from tunewheel_monitor.windows import Item, Silence, Stream

StreamKey = tuple[str, StreamName]
TOPIC_OF: dict[StreamName, str] = {
    "completions": topics.INFERENCE_COMPLETED.name,
    "feedback": topics.FEEDBACK_RECEIVED.name,
}
LEGIBLE = ("full", "redacted")
LONGEST_TEXT = 4_000
"""Characters kept of a question: the embedder reads 512 tokens."""
UNKNOWN_KEPT = 10_000
"""Model ids remembered as unknown, the latest; ratings come from outside and may name any. One that was
forgotten costs another look at the log."""


E = TypeVar("E", bound=Event)


class Follower(Protocol):
    """Something that follows the log, and can be told to read it to its present end."""

    async def refresh(self) -> None: ...


class Table(Follower, Protocol[E]):
    """The latest event of each project."""

    def get(self, key: str) -> Envelope[E] | None: ...

    def values(self) -> list[Envelope[E]]: ...


class Sorter:
    """Holds the open window streams: two per project, for the dataset of the model in production.

    When production moves to another dataset version the streams start anew.
    """

    def __init__(
        self,
        *,
        declared: Table[ProjectDeclared],
        desired: Table[ServingDesired],
        knowledge: Knowledge,
        lifecycle: Follower,
        records: WindowRecords,
    ) -> None:
        self.streams: dict[StreamKey, Stream] = {}
        self.records = records
        self._declared = declared
        self._desired = desired
        self._knowledge = knowledge
        self._lifecycle = lifecycle
        self._forms: dict[str, tuple[str, AnswerForm]] = {}
        self._unknown: dict[tuple[str, str, str], None] = {}
        self._last: dict[tuple[str, str], Envelope[Any]] = {}

    def spec(self, project: str) -> ProjectSpec | None:
        declared = self._declared.get(project)
        return declared.data.spec if declared else None

    def generation(self, project: str) -> int:
        desired = self._desired.get(project)
        return desired.data.generation if desired else 0

    def last_counted(self, trial: Trial) -> Envelope[Any] | None:
        """Return the completion that was counted last in ``trial``."""
        return self._last.get((trial.project, trial.model_id))

    async def open_all(self) -> list[WindowRecord]:
        """Open the streams of every project in production; return the newest record of each."""
        found: list[WindowRecord] = []
        for desired in self._desired.values():
            for name in DETECTORS:
                route = self._production(desired.project)
                if route is not None and route.dataset_id:
                    record = await self._open(desired.project, name, route.dataset_id)
                    found += [record] if record else []
        return found

    async def erased(self, project: str, items: Sequence[Item]) -> frozenset[str]:
        """Return the completions among ``items`` that an erasure takes, as the log says at this moment."""
        await self._lifecycle.refresh()
        return frozenset(
            item.completion_id
            for item in items
            if self._knowledge.erasures.take(
                project=project, customer=item.customer, source_id=item.completion_id, at=item.at
            )
        )

    def beginnings(self) -> dict[str, list[tuple[Offsets, datetime | None]]]:
        """Return, by topic, from where each stream and trial needs it: offsets, and a time for the rest."""
        needs: dict[str, list[tuple[Offsets, datetime | None]]] = {name: [] for name in TOPIC_OF.values()}
        for (project, name), stream in self.streams.items():
            route = self._production(project)
            since = self._knowledge.in_production_since(project, route.model_id) if route else None
            needs[TOPIC_OF[name]].append((dict(stream.frontier), since))
        for trial in self._knowledge.trials.values():
            needs[topics.INFERENCE_COMPLETED.name].append(({}, trial.started_at))
        return needs

    async def take(self, delivery: Delivery[Any]) -> None:
        """Sort one completion or rating into the streams and trials that it belongs to."""
        match delivery.event.data:
            case InferenceCompleted():
                await self._take_completion(delivery)
            case FeedbackReceived():
                await self._take_rating(delivery)
            case _:
                pass

    async def _take_completion(self, delivery: Delivery[InferenceCompleted]) -> None:
        data = delivery.event.data
        if data.pinned or not counts(data):
            return
        await self._learn(data.project, data.model_id, data.role)
        form = self._form(data.project)
        if form is None:
            return
        drifts = data.role is RouteRole.PRODUCTION and data.error is None
        stream = await self._stream(data.project, "completions", data.model_id) if drifts else None
        # From here on nothing waits and nothing fails: a batch that is repeated counts once.
        valid = _is_valid(data, form) if data.error is None else False
        for trial in self._knowledge.trials_of(data.project):
            if trial.count(data, valid=valid):
                self._last[trial.project, trial.model_id] = delivery.event
        if stream is not None and valid is not None:
            legible = data.texts in LEGIBLE
            shown = data.output[:EXCERPT] if legible else ""
            text = asked(data.messages)[:LONGEST_TEXT] if legible else None
            stream.absorb(_item(delivery, data.model_id, data.completed_at, not valid, text, shown))

    async def _take_rating(self, delivery: Delivery[FeedbackReceived]) -> None:
        data = delivery.event.data
        if data.model_id is None:
            return  # nothing says which model was rated
        await self._learn(data.project, data.model_id, RouteRole.PRODUCTION)
        stream = await self._stream(data.project, "feedback", data.model_id)
        if stream is not None:
            shown = (data.comment or "")[:EXCERPT]
            text = asked(data.messages)[:LONGEST_TEXT]
            bad = data.rating == "down"
            stream.absorb(_item(delivery, data.model_id, delivery.event.time, bad, text, shown))

    async def _stream(self, project: str, name: StreamName, model_id: str) -> Stream | None:
        """Return the stream that the model's traffic belongs to: only production's does to any."""
        spec, route = self.spec(project), self._production(project)
        if spec is None or not spec.drift.enabled or not set(DETECTORS[name]) & set(spec.drift.detectors):
            return None
        if route is None or route.model_id != model_id or route.dataset_id is None:
            return None
        stream = self.streams.get((project, name))
        if stream is None or stream.dataset_id != route.dataset_id:
            await self._open(project, name, route.dataset_id)
        return self.streams[project, name]

    async def _open(self, project: str, name: StreamName, dataset_id: str) -> WindowRecord | None:
        record = await self.records.latest(project, dataset_id, name)
        stream = Stream(project, dataset_id)
        if record is not None:
            stream.closed, stream.baseline = record.number, record.baseline
            stream.frontier = {int(partition): offset for partition, offset in record.frontier.items()}
            stream.silence = Silence(record.silence)
        self.streams[project, name] = stream
        return record

    async def _learn(self, project: str, model_id: str, role: RouteRole) -> None:
        """Read the log to its end, once, before concluding that a model is not what its traffic says."""
        route = self._production(project)
        if role is RouteRole.PRODUCTION:
            known = route is not None and route.model_id == model_id
        else:
            known = self._knowledge.has_trial(project, model_id, role.value)
        if known or (project, model_id, role.value) in self._unknown:
            return
        await self._lifecycle.refresh()
        await self._desired.refresh()
        await self._declared.refresh()
        self._unknown[project, model_id, role.value] = None
        while len(self._unknown) > UNKNOWN_KEPT:
            del self._unknown[next(iter(self._unknown))]

    def _production(self, project: str) -> Route | None:
        desired = self._desired.get(project)
        routes = desired.data.desired.routes if desired else ()
        return next((route for route in routes if route.role is RouteRole.PRODUCTION), None)

    def _form(self, project: str) -> AnswerForm | None:
        spec = self.spec(project)
        if spec is None:
            return None
        known = self._forms.get(project)
        if known is None or known[0] != spec.sha256:
            known = (spec.sha256, AnswerForm(spec.task))
            self._forms[project] = known
        return known[1]


def counts(completion: InferenceCompleted) -> bool:
    """Tell whether a completion says anything of the model that was asked: not one whose client left, nor one
    whose request was wrong."""
    return not completion.cancelled and completion.fault != "client"


def _is_valid(completion: InferenceCompleted, form: AnswerForm) -> bool | None:
    """Return the gateway's verdict on the format; where it gave none, ours. None: no text is there."""
    if completion.format_valid is not None:
        return completion.format_valid
    if completion.texts not in LEGIBLE:
        return None
    return form.is_valid(completion.output, said_before(completion.messages))


def _item(
    delivery: Delivery[Any], model_id: str, at: datetime, bad: bool, text: str | None, shown: str
) -> Item:
    return Item(
        completion_id=delivery.event.data.completion_id,
        model_id=model_id,
        partition=delivery.position.partition,
        offset=delivery.position.offset,
        at=at,
        bad=bad,
        event_id=delivery.event.id,
        correlation_id=delivery.event.correlation_id,
        customer=delivery.event.data.customer,
        text=text,
        shown=shown,
    )
