"""A project as its turns are decided by: open alarms, turns so far, what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_contracts.turn_status import STALE
from tunewheel_planner.spending import Run

GOOD = "was promoted"
"""The outcome of a turn whose model serves."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm that is open."""

    name: str
    detector: str
    """Its own name, such as ``novelty``; ``family`` is the part of production that it looks at."""
    family: str
    action: str
    """What it suggests."""
    at: datetime
    places: bool = False
    """It says where its questions lie, so that labels near them can be counted."""
    keywords: tuple[str, ...] = ()
    """What its questions are about."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of the wheel, from the request for a version on."""

    name: str
    """Id of the ``dataset.requested`` that names its records."""
    reason: BuildReason
    requested_at: datetime
    news_at: datetime
    """When its latest event happened."""
    alarms: tuple[str, ...] = ()
    """Names of those that it is to mend."""
    alarmed: bool = False
    """It was asked for while alarms were open, whether it names them or not: the records that it was built
    of may mend them too."""
    dataset_id: str | None = None
    spec_sha256: str | None = None
    training_sha256: str | None = None
    """Of what of the spec decides rows and training; None: curate did not say so then."""
    begun: bool = False
    """Its training began: no newer version supersedes it any more."""
    ended_at: datetime | None = None
    """Nothing is trained, judged or tried any more."""
    completed_at: datetime | None = None
    """``turn.completed`` says whether it helped."""
    outcome: str = ""
    why: str = ""

    @property
    def over_at(self) -> datetime | None:
        """Return when it was over: of one that serves against an alarm, when it was told whether that
        helped."""
        if self.alarmed and self.outcome == GOOD:
            return self.completed_at
        return self.ended_at

    @property
    def place(self) -> str:
        """How messages call it."""
        return self.dataset_id or f"the request {self.name}"


@dataclass(frozen=True, slots=True)
class State:
    """All that a decision rests on, but the time."""

    drift: DriftSpec
    spec_sha256: str
    training_sha256: str
    alarms: tuple[Alarm, ...] = ()
    """The open ones, oldest first."""
    turns: tuple[Turn, ...] = ()
    """Oldest first."""
    runs: tuple[Run, ...] = ()
    """What training cost so far, oldest first."""
    labelled: Mapping[str, int] = field(default_factory=dict[str, int])
    """By alarm: trusted examples near its cluster."""
    stale: timedelta = STALE
    """How long a turn may tell nothing."""

    def turns_for(self, alarm: Alarm) -> tuple[Turn, ...]:
        return tuple(turn for turn in self.turns if alarm.name in turn.alarms)

    def in_flight(self, now: datetime, *, begun: bool = False) -> Turn | None:
        """Return the oldest turn that is not over; with ``begun``, the oldest whose training began and that
        has not ended."""
        for turn in self.turns:
            goes_on = turn.begun and turn.ended_at is None if begun else turn.over_at is None
            if goes_on and now - turn.news_at < self.stale:
                return turn
        return None
