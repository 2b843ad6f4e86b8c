"""Folds the log's events about alarms, turns and their ends.

Topics have no order between them, and events may come twice. So each event's content is kept under a name,
and the state is computed when it is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRejected, DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.monitoring import DriftResolved, LabelsRequested
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed, TrainPlanned
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_planner.spending import Cost, Run, measured_cost, planned_cost
from tunewheel_wheel.turn import stale_after

from tunewheel_curate.turns.fates import BAD, Fates
from tunewheel_curate.turns.state import MACHINERY, UNANSWERED, Alarm, State, Turn

TOPICS = (
    topics.DRIFT_DETECTED,
    topics.ALARM_OPENED,
    topics.DRIFT_RESOLVED,
    topics.LABELS_REQUESTED,
    topics.DATASET_REQUESTED,
    topics.DATASET_VERSIONED,
    topics.DATASET_REJECTED,
    topics.TRAIN_PLANNED,
    topics.TRAIN_STARTED,
    topics.TRAIN_COMPLETED,
    topics.TRAIN_FAILED,
    topics.EVAL_PASSED,
    topics.EVAL_FAILED,
    topics.EVAL_UNDECIDED,
    topics.MODEL_PROMOTED,
    topics.MODEL_ROLLEDBACK,
    topics.TURN_COMPLETED,
)


@dataclass(slots=True)
class _Project:
    alarms: dict[str, Envelope[DriftDetected | AlarmOpened]] = field(default_factory=dict[str, Any])
    """By alarm name: the ``alarm_id``, or the event's id for an alarm from before there were ids."""
    raised_by: dict[str, str] = field(default_factory=dict[str, str])
    """By event id: the name of the alarm that the event raised."""
    resolved: dict[str, datetime] = field(default_factory=dict[str, datetime])
    """By alarm name: when the alarm was resolved."""
    alarmed: dict[str, bool] = field(default_factory=dict[str, bool])
    """By request: whether an alarm was open then. A cache, cleared when an alarm is raised or resolved."""
    wanted: dict[str, LabelsRequested] = field(default_factory=dict[str, Any])
    """By alarm: the newest revision of its request for labels."""
    requests: dict[str, Envelope[DatasetRequested]] = field(default_factory=dict[str, Any])
    """By id: the requests that name their records."""
    versions: dict[str, Envelope[DatasetVersioned]] = field(default_factory=dict[str, Any])
    """By request."""
    rejected: dict[str, Envelope[DatasetRejected]] = field(default_factory=dict[str, Any])
    fates: Fates = field(default_factory=Fates)
    plans: dict[str, tuple[datetime, TrainPlan]] = field(default_factory=dict[str, Any])
    """By run."""
    ends: dict[str, tuple[datetime, TrainCompleted | TrainFailed]] = field(default_factory=dict[str, Any])
    """By run; the latest counts."""


class TurnFacts:
    """Folds ``TOPICS``; applying an event twice, or in another order, changes nothing."""

    def __init__(self) -> None:
        self._projects: defaultdict[str, _Project] = defaultdict(_Project)

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event; other topics are ignored."""
        known, data = self._projects[envelope.project], envelope.data
        known.fates.apply(envelope)
        match data:
            case DriftDetected():
                # Drop users' texts: they are not needed here, and an erasure would not reach this copy.
                bare = replace(envelope, data=data.model_copy(update={"examples": ()}))
                _raise(known, data.alarm_id or envelope.id, bare)
                known.raised_by.setdefault(envelope.id, data.alarm_id or envelope.id)
            case AlarmOpened():
                _raise(known, data.alarm_id, envelope)
            case DriftResolved():
                at = known.resolved.get(data.alarm_id, data.resolved_at)
                known.resolved[data.alarm_id] = min(at, data.resolved_at)
                known.alarmed.clear()
            case LabelsRequested():
                newest = known.wanted.get(data.alarm_id, data)
                known.wanted[data.alarm_id] = max(newest, data, key=lambda asked: asked.revision)
            case DatasetRequested() if data.records_upto is not None:
                known.requests.setdefault(envelope.id, envelope)
            case DatasetVersioned():
                known.versions.setdefault(envelope.causation_id or envelope.id, envelope)
            case DatasetRejected():
                known.rejected.setdefault(envelope.causation_id or envelope.id, envelope)
            case TrainPlanned():
                _keep_first(known.plans, data.run_id, (envelope.time, data.plan))
            case TrainCompleted() | TrainFailed():
                _keep_last(known.ends, data.run_id, (envelope.time, data))
            case _:
                pass

    def alarmed(self) -> list[str]:
        """Return the projects that have an open alarm."""
        return [project for project, known in self._projects.items() if known.alarms.keys() - known.resolved]

    def alarm(self, project: str, name: str) -> Envelope[DriftDetected | AlarmOpened]:
        """Return the event that raised an alarm, without its examples."""
        return self._projects[project].alarms[name]

    def wanted(self, project: str, name: str) -> LabelsRequested | None:
        """Return the labels that an alarm needs: its request for labels, or one made from the alarm's
        cluster. None: neither says where the alarm's questions lie."""
        known = self._projects[project]
        return known.wanted.get(name) or _asked_by_alarm(name, known.alarms[name].data)

    def failure(self, project: str, dataset_id: str) -> str | None:
        """Return how the turn of a version failed; None: the turn goes on or ended well."""
        fate = self._projects[project].fates.of(dataset_id)
        if fate.outcome not in BAD:
            return None
        return f"{fate.outcome} ({fate.why})" if fate.why else fate.outcome

    def may_try_again(self, project: str, dataset_id: str) -> bool:
        """Return whether the turn of a version ended without a verdict about its data."""
        return self._projects[project].fates.of(dataset_id).outcome in MACHINERY

    def state(self, spec: ProjectSpec, labelled: Mapping[str, int] | None = None) -> State:
        """Return the state that decisions depend on. ``labelled`` is, by alarm, the number of trusted
        examples near its cluster in the record table."""
        known = self._projects[spec.project]
        turns = _turns(known)
        return State(
            drift=spec.drift,
            spec_sha256=spec.sha256,
            training_sha256=spec.training_sha256,
            alarms=_open_alarms(known, turns),
            turns=turns,
            runs=_runs(known),
            labelled=labelled or {},
            stale=stale_after(spec.rollout),
        )


def _raise(known: _Project, name: str, envelope: Envelope[Any]) -> None:
    """Keep the earlier of the two events that say of an alarm; the log soon loses one of them."""
    known.alarms[name] = min(known.alarms.get(name, envelope), envelope, key=lambda one: (one.time, one.id))
    known.alarmed.clear()


def _turns(known: _Project) -> tuple[Turn, ...]:
    """Return the turns, oldest first. Requests of a project are answered in order. So an unanswered request
    before an answered one became a dead letter, and its turn has ended."""
    turns = [_turn(known, request) for request in known.requests.values()]
    answered = [at for at, turn in enumerate(turns) if turn.dataset_id or turn.ended_at]
    for at, turn in enumerate(turns[: max(answered, default=0)]):
        if at not in answered:
            turns[at] = replace(turn, ended_at=turn.requested_at, outcome=UNANSWERED)
    return tuple(sorted(turns, key=lambda turn: (turn.requested_at, turn.name)))


def _turn(known: _Project, request: Envelope[DatasetRequested]) -> Turn:
    asked = request.data
    alarms = asked.alarm_ids or _alarm_behind(known, request)
    turn = Turn(
        name=request.id, reason=asked.reason, requested_at=request.time, news_at=request.time, alarms=alarms,
        alarmed=bool(alarms) or _was_alarmed(known, request),
    )  # fmt: skip
    if (rejected := known.rejected.get(request.id)) is not None:
        return replace(
            turn, spec_sha256=rejected.data.spec_sha256, training_sha256=rejected.data.training_sha256,
            news_at=rejected.time, ended_at=rejected.time, outcome="was rejected",
            why=rejected.data.reasons[0],
        )  # fmt: skip
    if (version := known.versions.get(request.id)) is None:
        return turn
    fate = known.fates.of(version.data.dataset_id)
    return replace(
        turn, dataset_id=version.data.dataset_id, spec_sha256=version.data.spec_sha256,
        training_sha256=version.data.training_sha256, begun=fate.begun,
        news_at=max(version.time, fate.news_at or version.time), ended_at=fate.ended_at,
        completed_at=fate.completed_at, outcome=fate.outcome, why=fate.why,
    )  # fmt: skip


def _was_alarmed(known: _Project, request: Envelope[DatasetRequested]) -> bool:
    """Return whether an alarm was open at the time of the request. If so, the monitor will say whether the
    turn helped, even if the request names no alarm."""
    if request.id not in known.alarmed:
        at = request.time
        known.alarmed[request.id] = any(
            event.data.alarm_id
            and event.time <= at
            and ((over := known.resolved.get(name)) is None or over > at)
            for name, event in known.alarms.items()
        )
    return known.alarmed[request.id]


def _alarm_behind(known: _Project, request: Envelope[DatasetRequested]) -> tuple[str, ...]:
    """Return the alarm that caused a request from before requests named their alarms."""
    name = known.raised_by.get(request.causation_id or "")
    return () if name is None else (name,)


def _open_alarms(known: _Project, turns: tuple[Turn, ...]) -> tuple[Alarm, ...]:
    heard = _heard_until(turns)
    opened = [
        Alarm(
            name=name, detector=event.data.signal or event.data.detector, family=event.data.detector,
            action=event.data.suggested_action or "retrain", at=event.time,
            places=name in known.wanted or _asked_by_alarm(name, event.data) is not None,
            keywords=event.data.cluster.keywords if event.data.cluster else (),
        )
        for name, event in known.alarms.items()
        if name not in known.resolved and (event.data.alarm_id or heard is None or event.time > heard)
    ]  # fmt: skip
    return tuple(sorted(opened, key=lambda alarm: (alarm.at, alarm.name)))


def _asked_by_alarm(name: str, alarm: DriftDetected | AlarmOpened) -> LabelsRequested | None:
    cluster = alarm.cluster
    if alarm.suggested_action == "update_documents":  # labels do not help: a document must be written
        return None
    if cluster is None or not (cluster.centroid or cluster.completion_ids):
        return None
    return LabelsRequested(
        project=alarm.project, request_id=name, alarm_id=name, dataset_id=alarm.dataset_id,
        wanted=cluster.prompts, centroid=cluster.centroid, radius=cluster.radius,
        completion_ids=cluster.completion_ids,
    )  # fmt: skip


def _heard_until(turns: tuple[Turn, ...]) -> datetime | None:
    """Return the time up to which nameless alarms count as handled.

    An older monitor raised alarms without ids and never resolved them. A turn handles the ones raised before
    its request; a turn that gave a version, those raised before its end; a turn under way, all of them.
    """
    if any(turn.ended_at is None for turn in turns):
        return datetime.max.replace(tzinfo=UTC)
    ends = [turn.ended_at for turn in turns if turn.dataset_id is not None and turn.ended_at is not None]
    asked = [turn.requested_at for turn in turns]
    return max((*asked, *(end - datetime.resolution for end in ends)), default=None)


def _runs(known: _Project) -> tuple[Run, ...]:
    """Return the runs in the order of their plans, each with its measured or planned cost. A run that was
    dropped before its first step is left out: it cost nothing, and does not show what the next run costs."""
    runs = [
        Run(at, _cost(plan, known.ends.get(run_id)))
        for run_id, (at, plan) in known.plans.items()
        if not _was_dropped(known.ends.get(run_id))
    ]
    return tuple(sorted(runs, key=lambda run: run.planned_at))


def _was_dropped(end: tuple[datetime, TrainCompleted | TrainFailed] | None) -> bool:
    return end is not None and isinstance(end[1], TrainFailed) and end[1].completed == 0


def _cost(plan: TrainPlan, end: tuple[datetime, TrainCompleted | TrainFailed] | None) -> Cost:
    match end:
        case (_, TrainCompleted() as done):
            return measured_cost(plan, wall_seconds=done.wall_seconds)
        case (_, TrainFailed() as failed):
            return planned_cost(plan, completed=failed.completed)
        case _:
            return planned_cost(plan)


def _keep_first(known: dict[str, tuple[datetime, Any]], name: str, said: tuple[datetime, Any]) -> None:
    if name not in known or said[0] < known[name][0]:
        known[name] = said


def _keep_last(known: dict[str, tuple[datetime, Any]], name: str, said: tuple[datetime, Any]) -> None:
    if name not in known or said[0] > known[name][0]:
        known[name] = said
