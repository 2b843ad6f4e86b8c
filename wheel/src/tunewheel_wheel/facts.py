"""Keeps the events of one project from which turns and models' stages follow, under their names.

Topics have no order between them, and events may come twice. So each event is kept under its name, and what
follows from several of them is computed when it is asked for (``turn.py``).
"""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, cast

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.events.data import DatasetRejected, DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided, ReviewRequested
from tunewheel_contracts.events.lifecycle import (
    ModelPromoted,
    ModelRegistered,
    ModelRolledback,
    ServingDesired,
)
from tunewheel_contracts.events.monitoring import DriftResolved
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed, TrainProgressed, TrainStarted
from tunewheel_contracts.events.turns import TurnCompleted, TurnDecided
from tunewheel_contracts.events.upstream import ProjectDeclared

from tunewheel_wheel.models import Models

ALARMS = (topics.DRIFT_DETECTED, topics.ALARM_OPENED, topics.DRIFT_RESOLVED)
TURNS = (
    topics.DATASET_REQUESTED,
    topics.DATASET_VERSIONED,
    topics.DATASET_REJECTED,
    topics.TRAIN_STARTED,
    topics.TRAIN_COMPLETED,
    topics.TRAIN_FAILED,
    topics.EVAL_PASSED,
    topics.EVAL_FAILED,
    topics.EVAL_UNDECIDED,
    topics.REVIEW_REQUESTED,
    topics.MODEL_PROMOTED,
    topics.MODEL_ROLLEDBACK,
    topics.TURN_COMPLETED,
    topics.TURN_COMPLETED_V2,
)
"""What decides the stage and the end of a turn. A reader of less sees other turns than the other readers."""
TOPICS = (
    *ALARMS,
    *TURNS,
    topics.PROJECT_DECLARED,
    topics.TURN_DECIDED,
    topics.TRAIN_PROGRESSED,
    topics.MODEL_REGISTERED,
)
"""What ``Facts`` folds."""
Verdict = Envelope[EvalPassed] | Envelope[EvalFailed] | Envelope[EvalUndecided] | Envelope[ReviewRequested]
Alarm = Envelope[DriftDetected] | Envelope[AlarmOpened]
E = TypeVar("E", bound=Envelope[Any])


class Facts:
    """The events of one project. Applying an event twice, or in another order, changes nothing."""

    def __init__(self) -> None:
        self.declared: Envelope[ProjectDeclared] | None = None
        """The latest spec."""
        self.desired: Envelope[ServingDesired] | None = None
        """The newest desired state of serving, for readers of its topic."""
        self.decision: Envelope[TurnDecided] | None = None
        """The latest decision of curate about the open alarms."""
        self.alarms: dict[str, Alarm] = {}
        """By ``alarm_id``; for alarms of earlier releases, which have none, by event id. ``alarm.opened``
        stays on the log when ``drift.detected``, which says more, is gone."""
        self.resolved: dict[str, datetime] = {}
        """By alarm."""
        self.asked: Envelope[DatasetRequested] | None = None
        """The latest request that names no records. Curate answers such a request with another one, which
        names the records."""
        self.requests: dict[str, Envelope[DatasetRequested]] = {}
        """By event id: the requests that name their records. Each of them began a turn."""
        self.order: list[tuple[datetime, str]] = []
        """Times and ids of those requests, sorted: to sort them after each event would take longer than all
        else that a list of projects needs."""
        self.versions: dict[str, Envelope[DatasetVersioned]] = {}
        """By request, like the rejections."""
        self.asked_versions: set[str] = set()
        """The dataset versions that a known request asked for."""
        self.first_requests: dict[str, tuple[datetime, str]] = {}
        """By dataset version: when it was made first, and for which request."""
        self.rejections: dict[str, Envelope[DatasetRejected]] = {}
        self.starts: dict[str, Envelope[TrainStarted]] = {}
        """By dataset version: the latest start, like the latest failure and the first completed run."""
        self.failures: dict[str, Envelope[TrainFailed]] = {}
        self.trained: dict[str, Envelope[TrainCompleted]] = {}
        self.progress: dict[str, Envelope[TrainProgressed]] = {}
        """By run: the latest step."""
        self.verdicts: defaultdict[str, dict[str, Verdict]] = defaultdict(dict)
        """By dataset version and event id."""
        self.made: defaultdict[str, set[str]] = defaultdict(set)
        """By dataset version: the models that were trained on it."""
        self.models = Models()
        self.completed: dict[str, Envelope[TurnCompleted]] = {}
        """By turn: how it ended, the latest revision."""
        self.courses: dict[str, tuple[Envelope[DatasetVersioned] | None, Any]] = {}
        """By dataset version: what ``turn.course_of`` made of these facts, and of which event about the
        version. A cache: an event that belongs to the version removes it."""
        self.turns: dict[str, tuple[bool, Any]] = {}
        """By request: what ``turn.turns_of`` made of these facts, and whether a later request was answered. A
        cache too."""
        self._versions_by_name: defaultdict[str, set[str]] = defaultdict(set)
        """By run and by model: its dataset versions."""
        self._alarms_at: dict[str, tuple[str, ...]] = {}
        """By request: the alarms that were open then. A cache, cleared with every event about an alarm."""

    def apply(self, envelope: Envelope[Any]) -> None:
        """Add one event. Events of other topics are ignored."""
        data = envelope.data
        self._forget_courses(data)
        match data:
            case ProjectDeclared():
                self.declared = _latest(self.declared, envelope)
            case ServingDesired():
                newest = self.desired or envelope
                self.desired = max(newest, envelope, key=lambda one: (one.data.generation, *_order(one)))
            case TurnDecided():
                self.decision = _latest(self.decision, envelope)
            case DriftDetected() | AlarmOpened():
                self._raise(data.alarm_id or envelope.id, envelope)
            case DriftResolved():
                at = self.resolved.get(data.alarm_id, data.resolved_at)
                self.resolved[data.alarm_id] = min(at, data.resolved_at)
                self._forget_alarms()
            case DatasetRequested(records_upto=None):
                self.asked = _latest(self.asked, envelope)
            case DatasetRequested():
                if envelope.id not in self.requests:
                    self.requests[envelope.id] = envelope
                    insort(self.order, (envelope.time, envelope.id))
                if (version := self.versions.get(envelope.id)) is not None:
                    self.asked_versions.add(version.data.dataset_id)
            case DatasetVersioned():
                asked = envelope.causation_id or envelope.id
                self.versions.setdefault(asked, envelope)
                self.turns.pop(asked, None)
                if asked in self.requests:
                    self.asked_versions.add(data.dataset_id)
                first = (self.versions[asked].time, asked)
                self.first_requests[data.dataset_id] = min(
                    self.first_requests.get(data.dataset_id, first), first
                )
            case DatasetRejected():
                self.rejections.setdefault(envelope.causation_id or envelope.id, envelope)
                self.turns.pop(envelope.causation_id or envelope.id, None)
            case TurnCompleted():
                before = self.completed.get(data.turn_id, envelope)
                self.completed[data.turn_id] = max(before, envelope, key=_revision)
                self.turns.clear()
            case ModelRegistered(dataset_id=str(dataset_id)):
                self.models.register(envelope)
                self.made[dataset_id].add(data.model_id)
            case ModelRegistered():
                self.models.register(envelope)
            case ModelPromoted() | ModelRolledback():
                self.models.move(envelope)
            case _:
                self._follow(envelope)

    def _forget_courses(self, data: Any) -> None:
        """Remove the courses and turns that an event may change."""
        of_version, naming, has_adapter = _naming(cast("type[Event]", type(data)))
        names = [name for field in naming if (name := getattr(data, field)) is not None]
        if has_adapter and data.adapter is not None:
            names.append(data.adapter.model_id)
        dataset_id: str | None = data.dataset_id if of_version else None
        if dataset_id is not None:
            for name in names:
                self._versions_by_name[name].add(dataset_id)
            changed = {dataset_id}
        else:
            changed = {version for name in names for version in self._versions_by_name.get(name, ())}
        for version in changed:
            self.courses.pop(version, None)
            if version in self.first_requests:
                self.turns.pop(self.first_requests[version][1], None)

    def _follow(self, envelope: Envelope[Any]) -> None:
        """Add an event of training or evaluation."""
        data = envelope.data
        match data:
            case TrainStarted():
                before = self.starts.get(data.dataset_id, envelope)
                self.starts[data.dataset_id] = max(before, envelope, key=order_of_training)
            case TrainFailed():
                before = self.failures.get(data.dataset_id, envelope)
                self.failures[data.dataset_id] = max(before, envelope, key=order_of_training)
            case TrainProgressed():
                self.progress[data.run_id] = _latest(self.progress.get(data.run_id), envelope)
            case TrainCompleted():
                self.made[data.dataset_id].add(data.adapter.model_id)
                before = self.trained.get(data.dataset_id, envelope)
                self.trained[data.dataset_id] = min(before, envelope, key=_order)
            case EvalPassed() | EvalFailed() | EvalUndecided() | ReviewRequested():
                self.made[data.dataset_id].add(data.adapter.model_id)
                self.verdicts[data.dataset_id].setdefault(envelope.id, envelope)
            case _:
                pass

    def _raise(self, name: str, alarm: Alarm) -> None:
        """Keep the event that says more, with the earlier of the two times."""
        if isinstance(alarm.data, DriftDetected):
            # Users' texts are dropped: nobody needs them here, and an erasure would not reach this copy.
            alarm = replace(
                cast("Envelope[DriftDetected]", alarm), data=alarm.data.model_copy(update={"examples": ()})
            )
        before = self.alarms.get(name, alarm)
        says_more = min(before, alarm, key=lambda one: (isinstance(one.data, AlarmOpened), *_order(one)))
        self.alarms[name] = replace(says_more, time=min(before.time, alarm.time))
        self._forget_alarms()

    def _forget_alarms(self) -> None:
        """Remove what followed from the alarms, because one was raised or resolved."""
        self._alarms_at.clear()
        self.turns.clear()

    def alarms_at(self, request: Envelope[DatasetRequested]) -> tuple[str, ...]:
        """Return the alarms with an id that were open at the time of a request, oldest first."""
        if request.id not in self._alarms_at:
            open_then = [
                (alarm.time, alarm.id, name)
                for name, alarm in self.alarms.items()
                if alarm.data.alarm_id
                and alarm.time <= request.time
                and ((over := self.resolved.get(name)) is None or over > request.time)
            ]
            self._alarms_at[request.id] = tuple(name for *_, name in sorted(open_then))
        return self._alarms_at[request.id]


@cache
def _naming(kind: type[Event]) -> tuple[bool, tuple[str, ...], bool]:
    """Return whether events of a class name a dataset version, which fields name its run and model, and
    whether they have an adapter. Asking each event for a field that it lacks would take longer."""
    fields = kind.model_fields
    named = tuple(name for name in ("run_id", "model_id") if name in fields)
    return "dataset_id" in fields, named, "adapter" in fields


def order_of_training(
    event: Envelope[TrainStarted] | Envelope[TrainFailed],
) -> tuple[int, bool, datetime, bool, str]:
    """Return the sort key of the starts and failures of a version. A failure ends its attempt, whatever the
    clocks of two workers say. Events of earlier releases have no attempt: they come first, by their times,
    and at equal times the start comes later, because a failure takes longer than a tick."""
    attempt, failed = event.data.attempt or 0, isinstance(event.data, TrainFailed)
    return attempt, failed and attempt > 0, event.time, not failed, event.id


def _order(event: Envelope[Any]) -> tuple[datetime, str]:
    return event.time, event.id


def _revision(event: Envelope[TurnCompleted]) -> tuple[int, datetime, str]:
    return event.data.revision, *_order(event)


def _latest(before: E | None, event: E) -> E:
    return event if before is None else max(before, event, key=_order)
