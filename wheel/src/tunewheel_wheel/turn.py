"""The turns of a project: the stage of each, and how it ended.

A turn begins with the request for its version and has that request's id. What is known of a version follows
from the last link of the chain that has an event, whatever the clocks say: the registry's steps of its model
(by generation) outweigh verdicts, a verdict outweighs the training. Starts and failures of a run follow each
other by their attempts. The time decides only between verdicts, and between events of earlier releases.
docs/architecture.md shows the stages, and which ends a turn may leave again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from tunewheel_contracts import identity
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import DatasetRequested, DatasetVersioned
from tunewheel_contracts.events.evaluation import EvalFailed, EvalPassed, EvalUndecided
from tunewheel_contracts.events.lifecycle import ModelPromoted, Stage
from tunewheel_contracts.events.training import TrainFailed, TrainProgressed
from tunewheel_contracts.events.turns import TurnCompleted

from tunewheel_wheel.facts import Facts, order_of_training
from tunewheel_wheel.models import STEPS, Step, order_of, stage_after

turn_id_of = lru_cache(1 << 17)(identity.turn_id_of)


class TurnStage(StrEnum):
    """How far a turn came. A turn that is over keeps the stage in which it ended."""

    BUILDING = "building"
    WAITING = "waiting"
    TRAINING = "training"
    EVALUATING = "evaluating"
    REVIEW = "review"
    UNDECIDED = "undecided"  # a trial that must show what its evaluation did not is to follow
    PASSED = "passed"
    SHADOW = "shadow"
    CANARY = "canary"
    PRODUCTION = "production"


class TurnEnd(StrEnum):
    """How a turn ended."""

    UNANSWERED = "unanswered"
    """Its request became a dead letter."""
    NO_VERSION = "no version"
    """Curate rejected its records."""
    UNCHANGED = "unchanged"
    """Its records make a version that an earlier turn has."""
    UNTRAINED = "untrained"
    SUPERSEDED = "superseded"
    """A newer version took its place before its training."""
    FAILED = "failed evaluation"
    UNDECIDED = "undecided"
    """By its evaluation, and no trial followed, or none showed more."""
    REJECTED = "rejected"
    ROLLED_BACK = "rolled back"
    RETIRED = "retired"
    """Before it served."""
    REPLACED = "replaced"
    """After it served, by a later model or by a person."""
    COMPLETED = "completed"
    """Its model serves, and ``turn.completed`` says what came of it."""


ROLLOUT = {
    Stage.UNDECIDED: TurnStage.UNDECIDED,
    Stage.EVALUATED: TurnStage.PASSED,
    Stage.SHADOW: TurnStage.SHADOW,
    Stage.CANARY: TurnStage.CANARY,
    Stage.PRODUCTION: TurnStage.PRODUCTION,
}
BEFORE_TRAINING = ("failed", "superseded")
MEASURED = ("helped", "did not help", "undecided", "promoted")
"""Outcomes of ``turn.completed`` for a turn whose model served. The others say that it ended before."""


@dataclass(frozen=True, slots=True)
class Course:
    """How far one dataset version came."""

    stage: TurnStage
    event: Envelope[Any]
    """The event that brought the version to this stage or end."""
    end: TurnEnd | None = None
    news: datetime | None = None
    """Time of the latest event about the version; None: that of ``event``."""
    begun: bool = False
    """Whether its training began. From then on no newer version supersedes it."""
    served_at: datetime | None = None
    """When its model first came to production."""
    run_id: str | None = None
    model_id: str | None = None
    progress: Envelope[TrainProgressed] | None = None
    """While it trains: the latest step."""
    recency: tuple[bool, datetime, int, str] = field(init=False, compare=False, repr=False)
    """The sort key by which the project is at the version that goes on and was moved last."""

    def __post_init__(self) -> None:
        goes_on = self.end is None and self.stage is not TurnStage.PRODUCTION
        data = self.event.data
        generation = data.generation if isinstance(data, STEPS) else None
        recency = goes_on, self.event.time, generation or 0, self.event.id
        object.__setattr__(self, "recency", recency)

    @property
    def news_at(self) -> datetime:
        return self.news or self.event.time


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of the wheel."""

    request: Envelope[DatasetRequested]
    course: Course
    alarms: tuple[str, ...] = ()
    """The alarms that the turn should resolve: those in the request, or else all that were open then."""
    version: Envelope[DatasetVersioned] | None = None
    completed: Envelope[TurnCompleted] | None = None
    """The monitor's report of the turn's end; None also where the turn went on after that report, or was
    rolled back."""
    revisions: int = 0
    """How many ends of this turn the monitor has reported, the void ones too."""

    @property
    def turn_id(self) -> str:
        return turn_id_of(self.request.id)

    @property
    def dataset_id(self) -> str | None:
        return self.version.data.dataset_id if self.version else None

    @property
    def stage(self) -> TurnStage:
        return self.course.stage

    @property
    def end(self) -> TurnEnd | None:
        """How the turn ended; None: the turn goes on, or its model serves and no event says yet whether the
        turn helped."""
        return self.course.end

    @property
    def since(self) -> datetime:
        """Since when the turn is in its stage, or over."""
        return self.course.event.time

    @property
    def news_at(self) -> datetime:
        return self.course.news_at


def turns_of(facts: Facts) -> tuple[Turn, ...]:
    """Return the turns, oldest first.

    Requests of a project are answered in order. So if a later request has an answer, an earlier one without
    an answer became a dead letter.
    """
    names, answers = [name for _, name in facts.order], (facts.versions, facts.rejections)
    newest_first = range(len(names) - 1, -1, -1)
    last = next((at for at in newest_first if any(names[at] in of for of in answers)), -1)
    return tuple(_turn(facts, name, passed_over=at < last) for at, name in enumerate(names))


def courses_of(facts: Facts) -> Iterator[Course]:
    """Yield how far each version came that no known request asked for."""
    made = facts.first_requests.keys() | facts.starts.keys() | facts.failures.keys() | facts.made.keys()
    if not (unasked := made - facts.asked_versions):
        return
    versions = {version.data.dataset_id: version for version in facts.versions.values()}
    for dataset_id in unasked:
        course = course_of(facts, dataset_id, versions.get(dataset_id))
        if course is not None:
            yield course


def _turn(facts: Facts, name: str, *, passed_over: bool) -> Turn:
    before, turn = facts.turns.get(name, (passed_over, None))
    if turn is None or before != passed_over:
        turn = _find_turn(facts, facts.requests[name], passed_over=passed_over)
        facts.turns[name] = passed_over, turn
    return turn


def _find_turn(facts: Facts, request: Envelope[DatasetRequested], *, passed_over: bool) -> Turn:
    completed = facts.completed.get(turn_id_of(request.id))
    version, rejected = facts.versions.get(request.id), facts.rejections.get(request.id)
    if rejected is not None:
        course = Course(TurnStage.BUILDING, rejected, TurnEnd.NO_VERSION)
    elif version is None:
        course = Course(TurnStage.BUILDING, request, TurnEnd.UNANSWERED if passed_over else None)
    elif facts.first_requests[version.data.dataset_id][1] != request.id:
        course = Course(TurnStage.WAITING, version, TurnEnd.UNCHANGED)
    else:
        course = course_of(facts, version.data.dataset_id, version) or Course(TurnStage.WAITING, version)
    alarms = request.data.alarm_ids or facts.alarms_at(request)
    if completed is not None and _is_void(completed.data.outcome, course):
        return Turn(request, course, alarms, version, revisions=completed.data.revision + 1)
    if completed is not None and course.end is None:
        course = replace(course, end=TurnEnd.COMPLETED)
    return Turn(request, course, alarms, version, completed, completed.data.revision + 1 if completed else 0)


def _is_void(outcome: str, course: Course) -> bool:
    """Return whether a turn went on after ``turn.completed`` told this outcome: a failed run was trained
    again, or the registry moved its model again. Of a turn that served only a rollback changes what was
    told."""
    if outcome in MEASURED:
        return course.end is TurnEnd.ROLLED_BACK
    if course.stage in (TurnStage.BUILDING, TurnStage.WAITING):
        return False
    if course.end is None:
        return True
    failed = course.end in (TurnEnd.UNTRAINED, TurnEnd.SUPERSEDED)
    left = course.end in (TurnEnd.REJECTED, TurnEnd.FAILED, TurnEnd.ROLLED_BACK)
    return (outcome in BEFORE_TRAINING and not failed) or (course.served_at is not None and not left)


def course_of(facts: Facts, dataset_id: str, version: Envelope[DatasetVersioned] | None) -> Course | None:
    """Return how far a version came; None: nothing is known of it."""
    if dataset_id not in facts.courses or facts.courses[dataset_id][0] is not version:
        facts.courses[dataset_id] = version, _course_of(facts, dataset_id, version)
    return facts.courses[dataset_id][1]


def _course_of(facts: Facts, dataset_id: str, version: Envelope[DatasetVersioned] | None) -> Course | None:
    start, failure = facts.starts.get(dataset_id), facts.failures.get(dataset_id)
    trained, verdicts = facts.trained.get(dataset_id), [*facts.verdicts.get(dataset_id, {}).values()]
    steps = [step for model in facts.made.get(dataset_id, ()) for step in facts.models.steps(model)]
    run_id = next((one.data.run_id for one in (trained, start, failure, *verdicts) if one), None)
    progress = facts.progress.get(run_id or "")
    course: Course | None = None
    if steps:
        course = _by_registry(sorted(steps, key=order_of))
    elif verdicts:
        course = _by_verdict(max(verdicts, key=lambda one: (one.time, one.id)))
    elif trained is not None:
        course = Course(TurnStage.EVALUATING, trained, model_id=trained.data.adapter.model_id)
    elif failure is not None and (start is None or order_of_training(start) < order_of_training(failure)):
        course = _by_failure(failure, begun=start is not None)
    elif start is not None:
        course = Course(TurnStage.TRAINING, start)
        if progress is not None and progress.time >= start.time:
            course = replace(course, progress=progress)
    elif version is not None:
        course = Course(TurnStage.WAITING, version)
    if course is None:
        return None
    news = [one.time for one in (version, start, failure, trained, progress, *verdicts, *steps) if one]
    return replace(course, run_id=run_id, news=max(news), begun=bool(start or trained))


def _by_failure(failure: Envelope[TrainFailed], *, begun: bool) -> Course:
    end = TurnEnd.SUPERSEDED if failure.data.superseded_by else TurnEnd.UNTRAINED
    return Course(TurnStage.TRAINING if begun else TurnStage.WAITING, failure, end)


def _by_verdict(verdict: Envelope[Any]) -> Course:
    """Return the course by the latest verdict, as long as the registry has not acted upon it."""
    model_id = verdict.data.adapter.model_id
    match verdict.data:
        case EvalPassed():
            return Course(TurnStage.PASSED, verdict, model_id=model_id)
        case EvalFailed():
            return Course(TurnStage.EVALUATING, verdict, TurnEnd.FAILED, model_id=model_id)
        case EvalUndecided():
            if verdict.data.moves_model:
                return Course(TurnStage.UNDECIDED, verdict, model_id=model_id)
            return Course(TurnStage.EVALUATING, verdict, TurnEnd.UNDECIDED, model_id=model_id)
        case _:
            return Course(TurnStage.REVIEW, verdict, model_id=model_id)


def _by_registry(steps: list[Step]) -> Course:
    """Return the course by the registry's steps. A model that passed may be evaluated again: only the
    registry's own steps move it then."""
    step, stages = steps[-1], [stage_after(one) for one in steps]
    served = Stage.PRODUCTION in stages
    reached = [ROLLOUT[stage] for stage in stages if stage in ROLLOUT]
    last = TurnStage.PRODUCTION if served else reached[-1] if reached else TurnStage.EVALUATING
    end: TurnEnd | None = None
    match stages[-1]:
        case Stage.ROLLED_BACK:
            end = TurnEnd.ROLLED_BACK
        case Stage.REJECTED:
            end = TurnEnd.FAILED if step.data.decided_by == "criteria" else TurnEnd.REJECTED
        case Stage.RETIRED if served:
            end = TurnEnd.REPLACED
        case Stage.RETIRED:
            doubted = any(_was_doubted_in_shadow(one) for one in steps[-2:-1])
            undecided = step.data.decided_by in ("criteria", *["rollout"] * doubted)
            end = TurnEnd.UNDECIDED if undecided else TurnEnd.RETIRED
        case stage:
            last = ROLLOUT[stage]
            # An earlier release kept a model ``evaluated`` after an undecided verdict.
            held_up = isinstance(step.data, ModelPromoted) and step.data.held_up and step.data.to_show is None
            ends = held_up and stage in (Stage.UNDECIDED, Stage.EVALUATED)
            end = TurnEnd.UNDECIDED if ends else None
    served_at = next((one.time for one in steps if stage_after(one) is Stage.PRODUCTION), None)
    return Course(last, step, end, served_at=served_at, model_id=step.data.model_id)


def _was_doubted_in_shadow(step: Step) -> bool:
    """Return whether the model was in shadow to show what its evaluation did not."""
    return stage_after(step) is Stage.SHADOW and getattr(step.data, "to_show", None) is not None
