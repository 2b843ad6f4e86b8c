"""The turns that the monitor has to end, with what its ``turn.completed`` tells of each."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalFailed, ReviewRequested
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected, RolloutJudged
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_wheel.facts import ALARMS, TURNS, Alarm, Facts
from tunewheel_wheel.turn import Turn as FoldedTurn
from tunewheel_wheel.turn import TurnEnd
from tunewheel_wheel.wheel import Wheel

TOPICS = (*TURNS, *ALARMS, topics.ROLLOUT_JUDGED)
Raised = DriftDetected | AlarmOpened
"""An alarm. The log keeps ``drift.detected`` for 30 days, ``alarm.opened`` for ever."""
HELD_OUT = ("label_accuracy", "valid_output")
"""The figures of the evaluation that are shown beside those of the traffic."""
OUTCOMES = {
    TurnEnd.UNANSWERED: "failed",
    TurnEnd.NO_VERSION: "failed",
    TurnEnd.UNCHANGED: "unchanged",
    TurnEnd.UNTRAINED: "failed",
    TurnEnd.SUPERSEDED: "superseded",
    TurnEnd.FAILED: "rejected",
    TurnEnd.REJECTED: "rejected",
    TurnEnd.UNDECIDED: "undecided by evaluation",
    TurnEnd.ROLLED_BACK: "rolled back",
    TurnEnd.RETIRED: "retired",
}
"""By end: the outcome that ``turn.completed`` names. Traffic says what came of a turn that served."""


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
    revision: int = 0
    """How many ends were told of it before, after which it went on."""

    @property
    def conclusion(self) -> str:
        """The name of its end."""
        return f"{self.turn_id}/{self.revision}" if self.revision else self.turn_id


class TurnLog:
    """Folds ``TOPICS``. Repeated events, and another order of events, change nothing."""

    def __init__(self) -> None:
        self._wheels: defaultdict[str, Wheel] = defaultdict(Wheel)
        self._trials: defaultdict[tuple[str, str], dict[str, datetime]] = defaultdict(dict)
        """By project and model: the time of each judgement of its rollout."""

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event; other topics are ignored."""
        if isinstance(envelope.data, RolloutJudged):
            trials = self._trials[envelope.project, envelope.data.model_id]
            trials.setdefault(envelope.id, envelope.time)
        else:
            self._wheels[envelope.project].apply(envelope)

    def projects(self) -> list[str]:
        """Return the projects that have, or had, a turn."""
        return [name for name, wheel in self._wheels.items() if wheel.facts.requests]

    def alarmed(self, project: str) -> frozenset[str]:
        """Return the families of detectors that have an open alarm."""
        alarms, resolved = self._alarms(project)
        return frozenset(alarm.data.detector for name, alarm in alarms.items() if name not in resolved)

    def open(self, project: str) -> list[Turn]:
        """Return the turns without a ``turn.completed``, and those that went on after it, oldest first."""
        wheel = self._wheels.get(project)
        return [self._turn(wheel.facts, one) for one in wheel.turns if one.completed is None] if wheel else []

    def clusters(self, project: str) -> list[Raised]:
        """Return the alarms with a cluster that are open, or that an open turn should resolve. Their
        questions are counted separately."""
        alarms, resolved = self._alarms(project)
        mending = {alarm.alarm_id for turn in self.open(project) for alarm in turn.alarms}
        clusters = [one.data for one in alarms.values() if one.data.cluster and one.data.cluster.centroid]
        return [one for one in clusters if one.alarm_id not in resolved or one.alarm_id in mending]

    def _alarms(self, project: str) -> tuple[dict[str, Alarm], dict[str, datetime]]:
        """Return the alarms that have an id, and when each was resolved."""
        wheel = self._wheels.get(project)
        return (_named(wheel.facts), wheel.facts.resolved) if wheel else ({}, {})

    def _turn(self, facts: Facts, folded: FoldedTurn) -> Turn:
        course, request = folded.course, folded.request
        turn = Turn(
            request.project, folded.turn_id, request, _alarms_at(facts, request), folded.dataset_id,
            run_id=course.run_id, model_id=course.model_id, promoted_at=course.served_at,
            left_at=course.event.time if course.end is TurnEnd.REPLACED else None, revision=folded.revisions,
        )  # fmt: skip
        if course.end is not None and course.end in OUTCOMES:
            turn.end = End(OUTCOMES[course.end], _reasons(facts, folded), course.event.time)
        if folded.version is None or course.end is TurnEnd.UNCHANGED:
            return turn
        dataset_id = folded.version.data.dataset_id
        turn.cost["labels"] = float(_new_examples(facts, folded.version.data))
        if (run := facts.trained.get(dataset_id)) is not None:
            turn.cost |= _cost_of(run.data)
        verdicts = _verdicts(facts, dataset_id)
        trials = self._trials.get((request.project, course.model_id or ""), {})
        judged = sorted(trials.items(), key=lambda one: (one[1], one[0]))
        turn.verdicts = (*(one.id for one in verdicts), *(name for name, _ in judged))
        if verdicts:
            turn.held_out = _held_out(verdicts[-1].data)
        return turn


def _named(facts: Facts) -> dict[str, Alarm]:
    return {name: alarm for name, alarm in facts.alarms.items() if alarm.data.alarm_id}


def _alarms_at(facts: Facts, request: Envelope[DatasetRequested]) -> tuple[Raised, ...]:
    """Return the alarms that the request names, or else every alarm that was open when it was made."""
    named = request.data.alarm_ids

    def was_open(name: str, alarm: Alarm) -> bool:
        if named:
            return name in named
        resolved = facts.resolved.get(name)
        return alarm.time <= request.time and (resolved is None or resolved > request.time)

    found = [alarm for name, alarm in _named(facts).items() if was_open(name, alarm)]
    return tuple(one.data for one in sorted(found, key=lambda one: (one.time, one.id)))


def _reasons(facts: Facts, folded: FoldedTurn) -> tuple[str, ...]:
    data = folded.course.event.data
    match folded.end:
        case TurnEnd.UNANSWERED:
            return ("the request was refused: a later request has an answer",)
        case TurnEnd.UNCHANGED:
            same = [one.time for one in facts.versions.values() if one.data.dataset_id == folded.dataset_id]
            return (f"the records make {folded.dataset_id} of {min(same):%Y-%m-%d}",)
        case TurnEnd.UNTRAINED:
            return (f"{data.field}: {data.reason}",)
        case TurnEnd.SUPERSEDED:
            return (f"{data.superseded_by} is newer",)
        case TurnEnd.FAILED:
            verdicts = _verdicts(facts, folded.dataset_id)
            failed = [one.data.reasons for one in verdicts if isinstance(one.data, EvalFailed)]
            return failed[-1] if failed else (data.reason,)
        case _:
            return data.reasons if hasattr(data, "reasons") else (data.reason,)


def _verdicts(facts: Facts, dataset_id: str | None) -> list[Envelope[Any]]:
    events = facts.verdicts.get(dataset_id or "", {}).values()
    verdicts = [one for one in events if not isinstance(one.data, ReviewRequested)]
    return sorted(verdicts, key=lambda one: (one.time, one.id))


def _new_examples(facts: Facts, version: DatasetVersioned) -> int:
    examples = (
        one.data.counts.examples for one in facts.versions.values() if one.data.dataset_id == version.previous
    )
    return max(0, version.counts.examples - next(examples, 0))


def _held_out(data: Any) -> tuple[dict[str, float], dict[str, float]]:
    by_role = {contestant.role: contestant.metrics for contestant in data.contestants}
    champion = by_role.get(Role.CHAMPION) or by_role.get(Role.BASE) or {}
    return tuple(  # type: ignore[return-value]
        {f"held_out_{name}": metrics[name] for name in HELD_OUT if name in metrics}
        for metrics in (champion, by_role.get(Role.CANDIDATE, {}))
    )


def _cost_of(run: TrainCompleted) -> dict[str, float]:
    hours = run.wall_seconds / 3600
    cost = {"hours": hours}
    if run.plan is not None and run.plan.device != "cpu":
        cost["gpu_hours"] = hours
    if run.plan is not None and run.plan.dollars is not None and run.plan.hours.expected > 0:
        cost["dollars"] = run.plan.dollars.expected / run.plan.hours.expected * hours
    return cost
