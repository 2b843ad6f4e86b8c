"""Says at which steps a project stands still, and since when, so that a hang can raise an alert.

A step is the stage of a turn, the end of the latest turn if it ended badly, or one of those below, which
belong to no stage. docs/operations.md says for each step how long is too long, and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from tunewheel_contracts.formats.rollout_spec import DAY, RolloutSpec

from tunewheel_wheel.facts import Facts
from tunewheel_wheel.turn import Course, TurnEnd, TurnStage
from tunewheel_wheel.wheel import Wheel

DECISION = "decision"
"""Curate has not answered an open alarm."""
LABELS, OPERATOR = "labels", "operator"
"""An open alarm waits for people's answers, or for another act of theirs."""
HELD = "held"
"""A version misses expectations and waits for a person."""
INDEX = "index"
"""A request for a version waits for the first index of the project's documents."""
OF_PEOPLE = {"annotators": LABELS, "operator": OPERATOR}
"""By whom an alarm waits for (``AlarmAnswer.waits_for``). Reviewers are asked by a turn."""
BAD = (TurnEnd.NO_VERSION, TurnEnd.UNTRAINED, TurnEnd.FAILED, TurnEnd.REJECTED, TurnEnd.ROLLED_BACK)
"""Ends that somebody should hear of."""
TRIALS = (TurnStage.SHADOW, TurnStage.CANARY)
QUEUED = (TurnStage.PASSED, TurnStage.UNDECIDED)
"""Stages in which a model waits while another one is on trial."""
STEPS = (
    DECISION,
    LABELS,
    OPERATOR,
    HELD,
    INDEX,
    *(stage.value for stage in TurnStage),
    *(end.value for end in BAD),
)
"""Every step that ``waits_of`` can name."""


def waits_of(wheel: Wheel, now: datetime) -> dict[str, datetime]:
    """Return, by step, since when the project has stood there without news. Of a trial: since its deadline,
    which may lie ahead."""
    found: dict[str, datetime] = {}
    for step, since in (*_of_alarms(wheel), *_of_turns(wheel, now)):
        found[step] = min(since, found.get(step, since))
    return found


def _of_alarms(wheel: Wheel) -> Iterator[tuple[str, datetime]]:
    decision = wheel.facts.decision
    answers = {one.alarm_id: one for one in decision.data.alarms} if decision is not None else {}
    for name, alarm in wheel.open_alarms.items():
        if name not in answers:
            yield DECISION, alarm.time
        elif (step := OF_PEOPLE.get(answers[name].waits_for or "")) is not None:
            yield step, alarm.time


def _of_turns(wheel: Wheel, now: datetime) -> Iterator[tuple[str, datetime]]:
    """Yield where turns stand, and how the last one ended. An older turn is left out if it had no news for so
    long that it is not in flight any more."""
    courses, place = [turn.course for turn in wheel.in_flight(now)], wheel.place
    if place is not None and place.end in BAD:
        held = getattr(place.event.data, "held", None) is not None
        yield HELD if held else str(place.end), place.event.time
    elif place is not None and place.end is None and place.stage is not TurnStage.PRODUCTION:
        courses.append(place)
    on_trial = any(course.stage in TRIALS for course in courses)
    for course in courses:
        if course.stage in TRIALS:
            yield course.stage.value, _deadline(wheel.facts, course)
        elif getattr(course.event.data, "awaits_index", False):
            yield INDEX, course.event.time
        elif not (on_trial and course.stage in QUEUED):
            yield course.stage.value, course.served_at or _last_step(course)


def _last_step(course: Course) -> datetime:
    """Return when a version last made progress. A training that is stuck in a step goes on telling so."""
    if course.progress is None:
        return course.news_at
    return _later(course.progress.time, -(course.progress.data.since_step_seconds or 0.0))


def _deadline(facts: Facts, course: Course) -> datetime:
    entry = facts.models.entries[course.model_id or ""]
    rollout = facts.declared.data.spec.rollout if facts.declared is not None else RolloutSpec()
    policy = rollout.shadow if course.stage is TurnStage.SHADOW else rollout.canary
    to_show = getattr(entry.data, "to_show", None) is not None
    seconds = DAY * rollout.undecided.days if to_show else policy.deadline_seconds
    return _later(entry.time, seconds)


def _later(time: datetime, seconds: float) -> datetime:
    """Return the time ``seconds`` after ``time``; the first or last date of all where events and specs name a
    number that leads beyond."""
    try:
        return time + timedelta(seconds=seconds)
    except OverflowError:
        return (datetime.max if seconds > 0 else datetime.min).replace(tzinfo=UTC)
