"""The state of a project that turns are decided from: open alarms, turns so far, and their cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.events.turns import TurnCompleted
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_planner.spending import Cost, Run, spent_in_month
from tunewheel_wheel.turn import Course, Turn, TurnEnd, TurnStage
from tunewheel_wheel.wheel import STALE

GOOD = "was promoted"
"""The outcome of a turn whose model serves."""
USELESS = "did not help"
OUTCOMES = {
    TurnEnd.UNANSWERED: "was never answered",
    TurnEnd.NO_VERSION: "was rejected",
    TurnEnd.UNTRAINED: "failed in training",
    TurnEnd.FAILED: "failed its evaluation",
    TurnEnd.UNDECIDED: "was undecided in its evaluation",
    TurnEnd.REJECTED: "was rejected",
    TurnEnd.ROLLED_BACK: "was rolled back",
    TurnEnd.RETIRED: "was retired before it served",
}
MACHINERY = frozenset(OUTCOMES[end] for end in (TurnEnd.UNTRAINED, TurnEnd.RETIRED, TurnEnd.UNANSWERED))
"""Outcomes without a verdict: a lost GPU, too little traffic for the trial, a request in a dead letter. They
say nothing about the data, which may be tried again."""
BAD = frozenset({*OUTCOMES.values(), USELESS} - {OUTCOMES[TurnEnd.UNANSWERED]})
"""Outcomes after which a command may try the same data again."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that is open."""

    name: str
    detector: str
    """The detector's name, such as ``novelty``."""
    family: str
    """The group of detectors that it belongs to: the part of production that they watch."""
    action: str
    """The action that the alarm suggests."""
    at: datetime
    places: bool = False
    """Whether the alarm says where its questions lie, so that labels near them can be counted."""
    keywords: tuple[str, ...] = ()
    """Words that describe the alarm's questions."""
    raised_by: frozenset[str] = frozenset()
    """The ids of the events ``drift.detected`` that raised it, or an alarm that it reopens."""
    reopens: tuple[str, ...] = ()
    """Earlier alarms about the same problem, latest first."""


def outcome_of(course: Course, completed: Envelope[TurnCompleted] | None) -> tuple[str, str]:
    """Return how a turn ended and why, in words; empty if it goes on."""
    if completed is not None and completed.data.outcome == USELESS:
        return USELESS, completed.data.next_step
    data = course.event.data
    if course.end is not None and course.end in OUTCOMES:
        why = data.reasons[0] if hasattr(data, "reasons") else getattr(data, "reason", "")
        return OUTCOMES[course.end], "" if course.end is TurnEnd.UNANSWERED else why
    return (GOOD, data.reason) if course.stage is TurnStage.PRODUCTION else ("", "")


def outcome(turn: Turn) -> str:
    """Return how a turn ended, in words; empty if it goes on."""
    return outcome_of(turn.course, turn.completed)[0]


def ended_at(turn: Turn) -> datetime | None:
    """Return when training, evaluation and rollout were over; None: they are not."""
    course = turn.course
    ends = [turn.completed.time] if turn.completed else []
    if course.end is not None or course.stage is TurnStage.PRODUCTION:
        ends.append(course.served_at or course.event.time)
    return min(ends, default=None)


def serves_against_alarms(turn: Turn) -> bool:
    """Return whether the turn was promoted, and alarms were open when it was requested. Its records may
    resolve them even if its request does not name them."""
    alarmed = bool(turn.alarms) or turn.request.data.reason is BuildReason.DRIFT
    return alarmed and outcome(turn) == GOOD


def over_at(turn: Turn) -> datetime | None:
    """Return when the turn was over. A turn that was promoted while alarms were open is over only when
    ``turn.completed`` says whether it helped."""
    if serves_against_alarms(turn):
        return turn.completed.time if turn.completed else None
    return ended_at(turn)


def name_of(turn: Turn) -> str:
    """Return the turn's name in messages."""
    return turn.dataset_id or f"the request {turn.request.id}"


@dataclass(frozen=True, slots=True)
class Labels:
    """The answers that people gave near an alarm's cluster, or to its request."""

    trusted: int = 0
    """Number of questions with an expert's answer."""
    lacking: Mapping[str, int] = field(default_factory=dict[str, int])
    """By cluster of the request that is a topic: how many answers it needs yet. 0: it is settled."""
    in_scope: float = 1.0
    """The share of the request's prompts that nobody called out of scope."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a decision depends on, except the time."""

    drift: DriftSpec
    spec_sha256: str
    training_sha256: str
    alarms: tuple[Alarm, ...] = ()
    """The open alarms, oldest first."""
    turns: tuple[Turn, ...] = ()
    """Oldest first. A turn whose version another turn has goes that turn's course."""
    runs: tuple[Run, ...] = ()
    """The training runs so far with their cost, oldest first."""
    tried: tuple[Run, ...] = ()
    """The sweeps so far with their cost. They do not show what the next run costs."""
    labelled: Mapping[str, int] = field(default_factory=dict[str, int])
    """By alarm: the number of trusted examples near its cluster."""
    answers: Mapping[str, Labels] = field(default_factory=dict[str, Labels])
    """By alarm: the same, by cluster."""
    stale: timedelta = STALE
    """A turn without an event for so long no longer blocks others."""

    def spent(self, now: datetime) -> Cost:
        """Return the cost of the runs and sweeps that began in the calendar month of ``now``, in UTC."""
        return spent_in_month((*self.runs, *self.tried), now)

    def turns_for(self, alarm: Alarm) -> tuple[Turn, ...]:
        """Return the turns whose requests name ``alarm`` or an alarm that it reopens. A request from before
        requests named their alarms is for the alarm that caused it."""
        names = {alarm.name, *alarm.reopens}
        return tuple(
            turn
            for turn in self.turns
            if not names.isdisjoint(turn.request.data.alarm_ids)
            or (not turn.request.data.alarm_ids and turn.request.causation_id in alarm.raised_by)
        )

    def in_flight(self, now: datetime, *, begun: bool = False) -> Turn | None:
        """Return the oldest turn that is not over. With ``begun``: the oldest turn whose training began and
        that has not ended. A turn without news holds nobody up, except for the newest one while people
        review it: they are reminded."""
        for turn in self.turns:
            goes_on = turn.course.begun and ended_at(turn) is None if begun else over_at(turn) is None
            reviewed = not begun and turn is self.turns[-1] and turn.stage is TurnStage.REVIEW
            if goes_on and (reviewed or now - turn.news_at < self.stale):
                return turn
        return None
