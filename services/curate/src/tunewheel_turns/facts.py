"""What decisions need of the log besides the wheel's turns: labels that are wanted, and the cost of runs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.production import AlarmOpened, DriftDetected
from tunewheel_contracts.events.training import SweepProgressed, TrainCompleted, TrainFailed, TrainPlanned
from tunewheel_contracts.events.turns import LabelsRequested
from tunewheel_contracts.formats.plan import TrainPlan
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_planner.spending import Cost, Run, measured_cost, planned_cost
from tunewheel_wheel.facts import ALARMS, TURNS, Facts
from tunewheel_wheel.facts import Alarm as OpenedAlarm
from tunewheel_wheel.turn import Course, Turn, TurnEnd, TurnStage, course_of
from tunewheel_wheel.wheel import Wheel, stale_after

from tunewheel_turns.state import BAD, MACHINERY, Alarm, State, ended_at, outcome_of

TOPICS = (*TURNS, *ALARMS, topics.LABELS_REQUESTED, topics.TRAIN_PLANNED, topics.SWEEP_PROGRESSED)


@dataclass(slots=True)
class _Project:
    wheel: Wheel = field(default_factory=Wheel)
    raised_by: defaultdict[str, set[str]] = field(default_factory=lambda: defaultdict[str, set[str]](set))
    """By alarm: the ids of the events that raised it."""
    wanted: dict[str, LabelsRequested] = field(default_factory=dict[str, Any])
    """By alarm: the newest revision of its request for labels."""
    plans: dict[str, tuple[datetime, TrainPlan]] = field(default_factory=dict[str, Any])
    """By run."""
    ends: dict[str, tuple[datetime, TrainCompleted | TrainFailed]] = field(default_factory=dict[str, Any])
    """By run; the latest counts."""
    sweeps: dict[str, tuple[datetime, SweepProgressed]] = field(default_factory=dict[str, Any])
    """By sweep: when it began, and how it ended, or the news with the most measurements."""


class TurnFacts:
    """Folds ``TOPICS``; applying an event twice, or in another order, changes nothing."""

    def __init__(self) -> None:
        self._projects: defaultdict[str, _Project] = defaultdict(_Project)

    def apply(self, envelope: Envelope[Any]) -> None:
        """Apply one event; other topics are ignored."""
        kept, data = self._projects[envelope.project], envelope.data
        kept.wheel.apply(envelope)
        match data:
            case DriftDetected():
                kept.raised_by[data.alarm_id or envelope.id].add(envelope.id)
            case LabelsRequested():
                newest = kept.wanted.get(data.alarm_id, data)
                kept.wanted[data.alarm_id] = max(newest, data, key=lambda asked: asked.revision)
            case TrainPlanned():
                _keep_first(kept.plans, data.run_id, (envelope.time, data.plan))
            case SweepProgressed():
                began, latest = kept.sweeps.get(data.sweep_id, (envelope.time, data))
                news = max(latest, data, key=lambda one: one.lateness)
                kept.sweeps[data.sweep_id] = min(began, envelope.time), news
            case TrainCompleted() | TrainFailed():
                _keep_last(kept.ends, data.run_id, (envelope.time, data))
            case _:
                pass

    def alarmed(self) -> list[str]:
        """Return the projects that have an open alarm."""
        projects = ((name, kept.wheel.facts) for name, kept in self._projects.items())
        return [name for name, facts in projects if facts.alarms.keys() - facts.resolved]

    def alarm(self, project: str, name: str) -> OpenedAlarm:
        """Return the event that raised an alarm, without its examples."""
        return self._projects[project].wheel.facts.alarms[name]

    def wanted(self, project: str, name: str) -> LabelsRequested | None:
        """Return the labels that an alarm needs: its request for labels, or one made from the alarm's
        cluster. None: neither says where the alarm's questions lie."""
        kept = self._projects[project]
        return kept.wanted.get(name) or _asked_by_alarm(name, kept.wheel.facts.alarms[name].data)

    def failure(self, project: str, dataset_id: str) -> str | None:
        """Return how the turn of a version failed; None: the turn goes on or ended well."""
        outcome, why = self._outcome(project, dataset_id)
        if outcome not in BAD:
            return None
        return f"{outcome} ({why})" if why else outcome

    def may_try_again(self, project: str, dataset_id: str) -> bool:
        """Return whether the turn of a version ended without a verdict about its data."""
        return self._outcome(project, dataset_id)[0] in MACHINERY

    def _outcome(self, project: str, dataset_id: str) -> tuple[str, str]:
        """Return how the turn that made a version first ended, and why; empty if it goes on."""
        wheel = self._projects[project].wheel
        made = next((one for one in wheel.turns if one.dataset_id == dataset_id), None)
        course = made.course if made else course_of(wheel.facts, dataset_id, None)
        completed = made.completed if made else None
        return outcome_of(_followed(wheel.facts, course), completed) if course else ("", "")

    def state(self, spec: ProjectSpec, labelled: Mapping[str, int] | None = None) -> State:
        """Return the state that decisions depend on. ``labelled`` is, by alarm, the number of trusted
        examples near its cluster in the record table."""
        kept = self._projects[spec.project]
        turns = tuple(replace(turn, course=_course(kept.wheel.facts, turn)) for turn in kept.wheel.turns)
        return State(
            drift=spec.drift,
            spec_sha256=spec.sha256,
            training_sha256=spec.training_sha256,
            alarms=_open_alarms(kept, turns),
            turns=turns,
            runs=_runs(kept),
            tried=tuple(_tried(began, news) for began, news in kept.sweeps.values()),
            labelled=labelled or {},
            stale=stale_after(spec.rollout),
        )


def _course(facts: Facts, turn: Turn) -> Course:
    """Return how far the data of a turn came. A version that an earlier turn made goes that turn's way."""
    course = turn.course
    if turn.version is not None and course.end is TurnEnd.UNCHANGED:
        course = course_of(facts, turn.version.data.dataset_id, turn.version) or course
    return _followed(facts, course)


def _followed(facts: Facts, course: Course) -> Course:
    """Return the course of the newer version, where a version was superseded before its training."""
    passed: set[str] = set()
    while course.end is TurnEnd.SUPERSEDED and (newer := course.event.data.superseded_by) not in passed:
        passed.add(newer)
        course = course_of(facts, newer, None) or Course(TurnStage.WAITING, course.event)
    return course


def _open_alarms(kept: _Project, turns: tuple[Turn, ...]) -> tuple[Alarm, ...]:
    facts, heard = kept.wheel.facts, _heard_until(turns)
    opened = [
        Alarm(
            name=name, detector=event.data.signal or event.data.detector, family=event.data.detector,
            action=event.data.suggested_action or "retrain", at=event.time,
            places=name in kept.wanted or _asked_by_alarm(name, event.data) is not None,
            keywords=event.data.cluster.keywords if event.data.cluster else (),
            raised_by=frozenset(kept.raised_by.get(name, ())), reopens=_reopened(facts, event.data),
        )
        for name, event in facts.alarms.items()
        if name not in facts.resolved and (event.data.alarm_id or heard is None or event.time > heard)
    ]  # fmt: skip
    return tuple(sorted(opened, key=lambda alarm: (alarm.at, alarm.name)))


def _reopened(facts: Facts, alarm: DriftDetected | AlarmOpened) -> tuple[str, ...]:
    """Return the alarms that ``alarm`` reopens, latest first."""
    names: list[str] = []
    while alarm.reopens and alarm.reopens not in names:
        names.append(alarm.reopens)
        if alarm.reopens not in facts.alarms:
            break
        alarm = facts.alarms[alarm.reopens].data
    return tuple(names)


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
    ends = [(turn, ended_at(turn)) for turn in turns]
    if any(end is None for _, end in ends):
        return datetime.max.replace(tzinfo=UTC)
    made = [end - datetime.resolution for turn, end in ends if turn.dataset_id and end]
    return max((*(turn.request.time for turn in turns), *made), default=None)


def _runs(kept: _Project) -> tuple[Run, ...]:
    """Return the runs in the order of their plans, each with its measured or planned cost. A run that was
    dropped before its first step is left out: it cost nothing, and does not show what the next run costs."""
    runs = [
        Run(at, _cost(plan, kept.ends.get(run_id)))
        for run_id, (at, plan) in kept.plans.items()
        if not _was_dropped(kept.ends.get(run_id))
    ]
    return tuple(sorted(runs, key=lambda run: run.planned_at))


def _tried(began: datetime, news: SweepProgressed) -> Run:
    """Return all recipes of a sweep as one run."""
    return Run(began, Cost(sum(run.gpu_hours for run in news.runs), news.dollars or 0.0))


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
    # Of ends at the same moment the one with more steps counts, in whatever order they are read.
    if name not in known or _lateness(said) > _lateness(known[name]):
        known[name] = said


def _lateness(said: tuple[datetime, Any]) -> tuple[datetime, float]:
    return said[0], getattr(said[1], "completed", 1.0)
