"""The turns that the monitor has to end, with what its ``turn.completed`` tells of each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalFailed, ReviewRequested
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected, RolloutJudged
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.events.turns import TurnCompletedV2
from tunewheel_contracts.formats.label_prompts import request_of
from tunewheel_contracts.formats.scorecard import RequestedRows, Role
from tunewheel_wheel.facts import ALARMS, TURNS, Alarm, Facts
from tunewheel_wheel.models import Step
from tunewheel_wheel.turn import Turn, TurnEnd
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
NEXT_STEPS = {
    "did not help": "Read the questions of the alarm beside what the model answers now. Correct labels that "
    "are wrong, add answers where they are few, or update the documents that the answers rest on.",
    "undecided": "Answer more prompts of the alarm, or rate or correct some of the answers to these "
    "questions: that tells whether they are right.",
    "rejected": "Read the verdict. Add or correct examples near the criterion that was missed, then ask for "
    "a version.",
    "failed": "Mend what the reason names, then ask for a version.",
    "undecided by evaluation": "Answer the labels that wait, or publish validated examples: every version "
    "holds out its share of them, and the next one takes this one's place. The reasons say how many more "
    "held-out rows would tell. Or promote the model by command.",
    "rolled back": "Read the judgement. Look at the candidate's answers before another version is rolled "
    "out.",
    "retired": "Look why the candidate could not be judged in time: too little traffic, or a model that does "
    "not load.",
    "unchanged": "Answer the labels that wait: without new records every version is the same.",
}
"""By outcome: what a person should do."""


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """A turn whose end no ``turn.completed`` has told, or that went on after it."""

    turn: Turn
    alarms: tuple[Raised, ...]
    """The alarms that it should resolve, oldest first."""
    report: TurnCompletedV2
    """How it ended. Where it goes on: what is known of it so far, under the outcome ``promoted``."""
    prompts: tuple[RequestedRows, ...] = ()
    """Who was right on held-out prompts that the alarms asked about, by the latest verdict with any."""

    @property
    def conclusion(self) -> str:
        """The name of its end."""
        return f"{self.turn.turn_id}/{self.turn.revisions}" if self.turn.revisions else self.turn.turn_id


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

    def entries(self, project: str) -> Mapping[str, Step]:
        """Return, by model, the registry's step that brought it to its present stage."""
        wheel = self._wheels.get(project)
        return wheel.facts.models.entries if wheel else {}

    def alarmed(self, project: str) -> frozenset[tuple[str, str]]:
        """Return the detectors that have an open alarm, each with its family."""
        alarms, resolved = self._alarms(project)
        still = [alarm.data for name, alarm in alarms.items() if name not in resolved]
        return frozenset((data.signal or "", data.detector) for data in still)

    def open(self, project: str) -> list[OpenTurn]:
        """Return the turns without a ``turn.completed``, and those that went on after it, oldest first."""
        wheel = self._wheels.get(project)
        return [self._open(wheel.facts, one) for one in wheel.turns if one.completed is None] if wheel else []

    def clusters(self, project: str) -> list[Raised]:
        """Return the alarms with a cluster that are open, or that an open turn should resolve. Their
        questions are counted separately."""
        alarms, resolved = self._alarms(project)
        turns = self._wheels[project].turns if alarms else ()
        mending = {name for turn in turns if turn.completed is None for name in turn.alarms}
        clusters = [one.data for one in alarms.values() if one.data.cluster and one.data.cluster.centroid]
        return [one for one in clusters if one.alarm_id not in resolved or one.alarm_id in mending]

    def _alarms(self, project: str) -> tuple[dict[str, Alarm], dict[str, datetime]]:
        """Return the alarms that have an id, and when each was resolved."""
        wheel = self._wheels.get(project)
        return (_named(wheel.facts), wheel.facts.resolved) if wheel else ({}, {})

    def _open(self, facts: Facts, turn: Turn) -> OpenTurn:
        course, request, alarms = turn.course, turn.request, _alarms_of(facts, turn)
        outcome = OUTCOMES.get(course.end, "promoted") if course.end else "promoted"
        ended_at = course.event.time if course.end in OUTCOMES else course.served_at or request.time
        report = TurnCompletedV2(
            project=request.project, turn_id=turn.turn_id, revision=turn.revisions,
            alarm_ids=tuple(alarm.alarm_id for alarm in alarms if alarm.alarm_id),
            dataset_id=turn.dataset_id, run_id=course.run_id, model_id=course.model_id,
            outcome=outcome, reasons=_reasons(facts, turn), next_step=NEXT_STEPS.get(outcome, ""),
            began_at=request.time, ended_at=max(ended_at, request.time),
        )  # fmt: skip
        if turn.version is not None and course.end is not TurnEnd.UNCHANGED:
            report = report.model_copy(update=self._measured(facts, turn.version.data, course.model_id))
        return OpenTurn(turn, alarms, report, _prompts(facts, turn, alarms))

    def _measured(self, facts: Facts, version: DatasetVersioned, model_id: str | None) -> dict[str, Any]:
        """Return what a version cost and the verdicts on its model, with their figures."""
        cost, run = {"labels": float(_new_examples(facts, version))}, facts.trained.get(version.dataset_id)
        verdicts = _verdicts(facts, version.dataset_id)
        trials = self._trials.get((version.project, model_id or ""), {})
        judged = sorted(trials, key=lambda name: (trials[name], name))
        before, after = _held_out(verdicts[-1].data) if verdicts else ({}, {})
        return {
            "cost": cost | (_cost_of(run.data) if run else {}),
            "verdicts": (*(one.id for one in verdicts), *judged),
            "before": before,
            "after": after,
        }


def _named(facts: Facts) -> dict[str, Alarm]:
    return {name: alarm for name, alarm in facts.alarms.items() if alarm.data.alarm_id}


def _alarms_of(facts: Facts, turn: Turn) -> tuple[Raised, ...]:
    alarms = _named(facts)
    return tuple(alarms[name].data for name in turn.alarms if name in alarms)


def _reasons(facts: Facts, turn: Turn) -> tuple[str, ...]:
    data = turn.course.event.data
    match turn.end:
        case None | TurnEnd.REPLACED:
            model_id = turn.course.model_id
            return (f"{model_id} serves; no alarm began the turn, so there is nothing to compare",)
        case TurnEnd.UNANSWERED:
            return ("the request was refused: a later request has an answer",)
        case TurnEnd.UNCHANGED:
            same = [one.time for one in facts.versions.values() if one.data.dataset_id == turn.dataset_id]
            return (f"the records make {turn.dataset_id} of {min(same):%Y-%m-%d}",)
        case TurnEnd.UNTRAINED:
            return (f"{data.field}: {data.reason}",)
        case TurnEnd.SUPERSEDED:
            return (f"{data.superseded_by} is newer",)
        case TurnEnd.FAILED:
            verdicts = _verdicts(facts, turn.dataset_id)
            failed = [one.data.reasons for one in verdicts if isinstance(one.data, EvalFailed)]
            return failed[-1] if failed else (data.reason,)
        case _:
            return data.reasons if hasattr(data, "reasons") else (data.reason,)


def _verdicts(facts: Facts, dataset_id: str | None) -> list[Envelope[Any]]:
    events = facts.verdicts.get(dataset_id or "", {}).values()
    verdicts = [one for one in events if not isinstance(one.data, ReviewRequested)]
    return sorted(verdicts, key=lambda one: (one.time, one.id))


def _prompts(facts: Facts, turn: Turn, alarms: tuple[Raised, ...]) -> tuple[RequestedRows, ...]:
    wanted = {request_of(alarm.alarm_id) for alarm in alarms if alarm.alarm_id}
    told = [one.data.requested for one in _verdicts(facts, turn.dataset_id)]
    of_alarms = [tuple(rows for rows in some if rows.request_id in wanted) for some in told]
    return next((some for some in reversed(of_alarms) if some), ())


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
