"""Folds the turns, and how far each has come, from the log.

A turn has the id of the request for its dataset version. Events of different topics come in any order, and
all of them come again after a restart. So ``TurnLog`` keeps the content of each event, and computes a turn
when it is asked for.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRejected, DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRolledback, Stage
from tunewheel_contracts.events.monitoring import DriftResolved, TurnCompleted
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected, RolloutJudged
from tunewheel_contracts.events.training import TrainCompleted, TrainFailed
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.identity import turn_id_of

TOPICS = (
    topics.DATASET_REQUESTED,
    topics.DATASET_VERSIONED,
    topics.DATASET_REJECTED,
    topics.TRAIN_COMPLETED,
    topics.TRAIN_FAILED,
    topics.EVAL_PASSED,
    topics.EVAL_FAILED,
    topics.EVAL_UNDECIDED,
    topics.MODEL_PROMOTED,
    topics.MODEL_ROLLEDBACK,
    topics.ROLLOUT_JUDGED,
    topics.DRIFT_DETECTED,
    topics.ALARM_OPENED,
    topics.DRIFT_RESOLVED,
    topics.TURN_COMPLETED,
)
Raised = DriftDetected | AlarmOpened
"""An alarm. The log keeps ``drift.detected`` for 30 days, ``alarm.opened`` for ever."""
HELD_OUT = ("label_accuracy", "valid_output")
"""The figures of the evaluation that are shown beside those of the traffic."""


@dataclass(frozen=True, slots=True)
class End:
    """How a turn ended, before or after reaching production."""

    outcome: str
    reasons: tuple[str, ...]
    at: datetime


@dataclass(slots=True)
class Turn:
    """One turn, by the events on the log so far."""

    project: str
    turn_id: str
    request: Envelope[DatasetRequested]
    alarms: tuple[Raised, ...] = ()
    """The alarms that the version should resolve, oldest first."""
    dataset_id: str | None = None
    run_id: str | None = None
    model_id: str | None = None
    promoted_at: datetime | None = None
    left_at: datetime | None = None
    """When a later model replaced it in production."""
    end: End | None = None
    verdicts: tuple[str, ...] = ()
    cost: dict[str, float] = field(default_factory=dict[str, float])
    held_out: tuple[dict[str, float], dict[str, float]] = ({}, {})
    """The evaluation's figures: the champion's, and the candidate's."""


@dataclass(slots=True)
class _Project:
    """A project's events, by the ids that link them."""

    requests: dict[str, Envelope[DatasetRequested]] = field(default_factory=dict[str, Any])
    """By turn id: the requests that name their records."""
    versions: dict[str, dict[str, Envelope[DatasetVersioned]]] = field(
        default_factory=lambda: defaultdict(dict)
    )
    """By dataset id and request, since the same records give the same version again."""
    refused: dict[str, Envelope[DatasetRejected]] = field(default_factory=dict[str, Any])
    runs: dict[str, Envelope[TrainCompleted]] = field(default_factory=dict[str, Any])
    failures: dict[str, Envelope[TrainFailed]] = field(default_factory=dict[str, Any])
    verdicts: dict[str, dict[str, Envelope[Any]]] = field(default_factory=lambda: defaultdict(dict))
    trials: dict[str, dict[str, datetime]] = field(default_factory=lambda: defaultdict(dict))
    moves: dict[str, dict[str, Envelope[Any]]] = field(default_factory=lambda: defaultdict(dict))
    alarms: dict[str, Envelope[Raised]] = field(default_factory=dict[str, Any])
    resolved: dict[str, datetime] = field(default_factory=dict[str, datetime])
    completed: set[str] = field(default_factory=set[str])


class TurnLog:
    """Folds ``TOPICS``. Repeated events, and another order of events, change nothing."""

    def __init__(self) -> None:
        self._projects: dict[str, _Project] = defaultdict(_Project)

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event; other topics are ignored."""
        known, data = self._projects[envelope.project], envelope.data
        match data:
            case DatasetRequested() if data.records_upto is not None:
                known.requests.setdefault(turn_id_of(envelope.id), envelope)
            case DatasetVersioned():
                known.versions[data.dataset_id].setdefault(envelope.causation_id or "", envelope)
            case DatasetRejected():
                known.refused.setdefault(envelope.causation_id or "", envelope)
            case TrainCompleted():
                known.runs[data.dataset_id] = envelope
            case TrainFailed():
                known.failures[data.dataset_id] = envelope
            case EvalPassed() | EvalFailed() | EvalUndecided():
                known.verdicts[data.dataset_id].setdefault(envelope.id, envelope)
            case RolloutJudged():
                known.trials[data.model_id].setdefault(envelope.id, envelope.time)
            case ModelPromoted() | ModelRolledback():
                known.moves[data.model_id].setdefault(envelope.id, envelope)
            case DriftDetected(alarm_id=str(name)) | AlarmOpened(alarm_id=name):
                first = known.alarms.get(name, envelope)
                known.alarms[name] = min(first, envelope, key=lambda one: (one.time, one.id))
            case DriftResolved():
                known.resolved.setdefault(data.alarm_id, data.resolved_at)
            case TurnCompleted():
                known.completed.add(data.turn_id)
            case _:
                pass

    def projects(self) -> list[str]:
        """Return the projects that have, or had, a turn."""
        return [name for name, known in self._projects.items() if known.requests]

    def alarmed(self, project: str) -> frozenset[str]:
        """Return the families of detectors that have an open alarm."""
        known = self._projects.get(project)
        open_ = known.alarms.keys() - known.resolved.keys() if known else ()
        return frozenset(known.alarms[name].data.detector for name in open_) if known else frozenset()

    def open(self, project: str) -> list[Turn]:
        """Return the turns without a ``turn.completed``, oldest first."""
        known = self._projects.get(project)
        if known is None:
            return []
        waiting = [one for name, one in known.requests.items() if name not in known.completed]
        return [_turn(known, request) for request in sorted(waiting, key=lambda one: (one.time, one.id))]

    def clusters(self, project: str) -> list[Raised]:
        """Return the alarms with a cluster that are open, or that an open turn should resolve. Their
        questions are counted separately."""
        known = self._projects.get(project)
        if known is None:
            return []
        mending = {alarm.alarm_id for turn in self.open(project) for alarm in turn.alarms}
        alarms = [one.data for one in known.alarms.values() if one.data.cluster and one.data.cluster.centroid]
        return [one for one in alarms if one.alarm_id not in known.resolved or one.alarm_id in mending]


def _turn(known: _Project, request: Envelope[DatasetRequested]) -> Turn:
    turn = Turn(request.project, turn_id_of(request.id), request, _alarms_at(known, request))
    if (refused := known.refused.get(request.id)) is not None:
        turn.end = End("failed", refused.data.reasons, refused.time)
        return turn
    made = {dataset_id: by[request.id] for dataset_id, by in known.versions.items() if request.id in by}
    for dataset_id, version in made.items():
        turn.dataset_id = dataset_id
        if (first := _earlier(known, version)) is not None:
            turn.end = End("unchanged", (f"the records make {dataset_id} of {first:%Y-%m-%d}",), version.time)
            return turn
        turn.cost["labels"] = float(_new_examples(known, version.data))
        _follow(known, turn, dataset_id)
    return turn


def _alarms_at(known: _Project, request: Envelope[DatasetRequested]) -> tuple[Raised, ...]:
    """Return the alarms that the request names, or else every alarm that was open when it was made."""
    named = request.data.alarm_ids

    def was_open(alarm: Envelope[Raised]) -> bool:
        if named:
            return alarm.data.alarm_id in named
        resolved = known.resolved.get(alarm.data.alarm_id or "")
        return alarm.time <= request.time and (resolved is None or resolved > request.time)

    found = [one for one in known.alarms.values() if was_open(one)]
    return tuple(one.data for one in sorted(found, key=lambda one: (one.time, one.id)))


def _earlier(known: _Project, version: Envelope[DatasetVersioned]) -> datetime | None:
    """Return when the same version was made for an earlier request; None: it was not."""
    same = known.versions[version.data.dataset_id].values()
    first = min(same, key=lambda one: (one.time, one.causation_id or ""))
    return None if first.causation_id == version.causation_id else first.time


def _new_examples(known: _Project, version: DatasetVersioned) -> int:
    before = next(iter(known.versions.get(version.previous or "", {}).values()), None)
    return max(0, version.counts.examples - (before.data.counts.examples if before else 0))


def _follow(known: _Project, turn: Turn, dataset_id: str) -> None:
    """Add the training, evaluation and rollout of the turn's version to ``turn``."""
    if (failed := known.failures.get(dataset_id)) is not None:
        newer = failed.data.superseded_by
        reason = f"{newer} is newer" if newer else f"{failed.data.field}: {failed.data.reason}"
        turn.run_id = failed.data.run_id
        turn.end = End("superseded" if newer else "failed", (reason,), failed.time)
    if (run := known.runs.get(dataset_id)) is None:
        return
    turn.run_id, turn.model_id, turn.end = run.data.run_id, run.data.adapter.model_id, None
    turn.cost |= _cost_of(run.data)
    verdicts = sorted(known.verdicts.get(dataset_id, {}).values(), key=lambda one: (one.time, one.id))
    judged = sorted(known.trials.get(turn.model_id, {}).items(), key=lambda one: (one[1], one[0]))
    turn.verdicts = (*(one.id for one in verdicts), *(name for name, _ in judged))
    for verdict in verdicts:
        turn.end, turn.held_out = _end_by_verdict(verdict), _held_out(verdict.data)
    _move(known, turn, turn.model_id)


def _end_by_verdict(verdict: Envelope[Any]) -> End | None:
    match verdict.data:
        case EvalFailed() as data:
            return End("rejected", data.reasons, verdict.time)
        case EvalUndecided() as data:
            return End("undecided by evaluation", data.reasons, verdict.time)
        case _:
            return None


def _held_out(data: Any) -> tuple[dict[str, float], dict[str, float]]:
    by_role = {contestant.role: contestant.metrics for contestant in data.contestants}
    champion = by_role.get(Role.CHAMPION) or by_role.get(Role.BASE) or {}
    return tuple(  # type: ignore[return-value]
        {f"held_out_{name}": metrics[name] for name in HELD_OUT if name in metrics}
        for metrics in (champion, by_role.get(Role.CANDIDATE, {}))
    )


def _move(known: _Project, turn: Turn, model_id: str) -> None:
    """Add the model's stage changes to ``turn``: its trial, production, and how it left them."""
    for step in sorted(known.moves.get(model_id, {}).values(), key=order_of):
        match step.data:
            case ModelRolledback() as data:
                turn.end = End("rolled back", (data.reason,), step.time)
            case ModelPromoted(to_stage=Stage.PRODUCTION):
                turn.promoted_at, turn.left_at, turn.end = turn.promoted_at or step.time, None, None
            case ModelPromoted(to_stage=Stage.EVALUATED, held_up=True) as data:
                turn.end = End("undecided by evaluation", (data.reason,), step.time)
            case ModelPromoted(to_stage=Stage.EVALUATED | Stage.SHADOW | Stage.CANARY):
                turn.end = None  # once a model passed, only the registry's steps end its turn
            case ModelPromoted(to_stage=Stage.REJECTED) as data if turn.end is None:
                turn.end = End("rejected", (data.reason,), step.time)
            case ModelPromoted(to_stage=Stage.RETIRED) as data:
                if turn.promoted_at is None:
                    # By criteria: a new verdict, against the present champion, was undecided.
                    outcome = "undecided by evaluation" if data.decided_by == "criteria" else "retired"
                    turn.end = turn.end or End(outcome, (data.reason,), step.time)
                else:
                    turn.left_at = step.time
            case _:
                pass


def order_of(step: Envelope[Any]) -> tuple[int, datetime, str]:
    """Return the sort key of a registry's steps: the clocks of two registries may differ, generations do
    not."""
    return step.data.generation or 0, step.time, step.id


def _cost_of(run: TrainCompleted) -> dict[str, float]:
    hours = run.wall_seconds / 3600
    cost = {"hours": hours}
    if run.plan is not None and run.plan.device != "cpu":
        cost["gpu_hours"] = hours
    if run.plan is not None and run.plan.dollars is not None and run.plan.hours.expected > 0:
        cost["dollars"] = run.plan.dollars.expected / run.plan.hours.expected * hours
    return cost
