"""The state of a project that turns are decided from: open alarms, turns so far, and their cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.events.monitoring import TurnCompleted
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_planner.spending import Run
from tunewheel_wheel.turn import STALE, Course, TurnEnd, TurnStage

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


def outcome_of(course: Course, completed: TurnCompleted | None) -> tuple[str, str]:
    """Return how a turn ended and why, in words; empty if it goes on."""
    if completed is not None and completed.outcome == USELESS:
        return USELESS, completed.next_step
    data = course.event.data
    if course.end is not None and course.end in OUTCOMES:
        why = data.reasons[0] if hasattr(data, "reasons") else getattr(data, "reason", "")
        return OUTCOMES[course.end], "" if course.end is TurnEnd.UNANSWERED else why
    return (GOOD, data.reason) if course.stage is TurnStage.PRODUCTION else ("", "")


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


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of the wheel. It begins with the request for a version."""

    name: str
    """Id of the ``dataset.requested`` that names its records."""
    reason: BuildReason
    requested_at: datetime
    news_at: datetime
    """The time of its latest event."""
    alarms: tuple[str, ...] = ()
    """The names of the alarms that it should resolve."""
    alarmed: bool = False
    """Whether alarms were open when it was requested. Its records may resolve them even if it does not name
    them."""
    dataset_id: str | None = None
    spec_sha256: str | None = None
    training_sha256: str | None = None
    """Hash of the parts of the spec that decide rows and training; None: the event is from before this
    hash."""
    begun: bool = False
    """Whether its training began. From then on no newer version supersedes it."""
    ended_at: datetime | None = None
    """When training, evaluation and rollout were over."""
    completed_at: datetime | None = None
    """When ``turn.completed`` said whether it helped."""
    outcome: str = ""
    why: str = ""

    @property
    def over_at(self) -> datetime | None:
        """Return when the turn was over. A turn that was promoted while alarms were open is over only when
        ``turn.completed`` says whether it helped."""
        if self.alarmed and self.outcome == GOOD:
            return self.completed_at
        return self.ended_at

    @property
    def place(self) -> str:
        """The turn's name in messages."""
        return self.dataset_id or f"the request {self.name}"


@dataclass(frozen=True, slots=True)
class State:
    """Everything that a decision depends on, except the time."""

    drift: DriftSpec
    spec_sha256: str
    training_sha256: str
    alarms: tuple[Alarm, ...] = ()
    """The open alarms, oldest first."""
    turns: tuple[Turn, ...] = ()
    """Oldest first."""
    runs: tuple[Run, ...] = ()
    """The training runs so far with their cost, oldest first."""
    labelled: Mapping[str, int] = field(default_factory=dict[str, int])
    """By alarm: the number of trusted examples near its cluster."""
    stale: timedelta = STALE
    """A turn without an event for so long no longer blocks others."""

    def turns_for(self, alarm: Alarm) -> tuple[Turn, ...]:
        return tuple(turn for turn in self.turns if alarm.name in turn.alarms)

    def in_flight(self, now: datetime, *, begun: bool = False) -> Turn | None:
        """Return the oldest turn that is not over. With ``begun``: the oldest turn whose training began and
        that has not ended."""
        for turn in self.turns:
            goes_on = turn.begun and turn.ended_at is None if begun else turn.over_at is None
            if goes_on and now - turn.news_at < self.stale:
                return turn
        return None
