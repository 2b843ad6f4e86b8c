"""One project's alarms, turns and models' stages."""

from __future__ import annotations

from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.turns import TurnCompleted
from tunewheel_contracts.formats.rollout_spec import DAY, RolloutSpec

from tunewheel_wheel.facts import Alarm, Facts
from tunewheel_wheel.turn import Course, Turn, TurnEnd, TurnStage, courses_of, turns_of

ASIDE = (TurnEnd.SUPERSEDED, TurnEnd.UNANSWERED, TurnEnd.UNCHANGED)
"""Ends that say nothing of the project: another turn has it."""
STALE = timedelta(days=7)
"""A turn without any event for this long no longer counts as in flight: the service that should continue it
is gone, or a person does not answer. A turn whose model is on trial has more time; see ``stale_after``."""
CENTURY = 36_500 * DAY
"""Seconds. Longer deadlines, which a spec may name, count as this one: dates end with the year 9999."""


def stale_after(rollout: RolloutSpec) -> timedelta:
    """Return how long a turn may be without an event: a trial may have none until its deadline, and one more
    day is added for its verdict."""
    trials = [stage.deadline_seconds for stage in (rollout.shadow, rollout.canary) if stage.enabled]
    longest = max([*trials, DAY * rollout.undecided.days if rollout.undecided.enabled else 0])
    return max(STALE, timedelta(seconds=min(longest, CENTURY)) + timedelta(days=1))


class Wheel:
    """One project. Applying an event twice, or in another order, changes nothing."""

    def __init__(self) -> None:
        self.facts = Facts()
        self._turns: tuple[Turn, ...] | None = None
        self._courses: tuple[Course, ...] | None = None
        self._place: Course | None = None
        self._has_place = False

    def apply(self, envelope: Envelope[Any]) -> None:
        """Add one event. Events of other topics are ignored."""
        self.facts.apply(envelope)
        self._turns = self._courses = None
        self._has_place = False

    @property
    def turns(self) -> tuple[Turn, ...]:
        """Return all turns, oldest first."""
        if self._turns is None:
            self._turns = turns_of(self.facts)
        return self._turns

    @property
    def courses(self) -> tuple[Course, ...]:
        """Return how far each version came, those of turns first."""
        if self._courses is None:
            self._courses = (*(turn.course for turn in self.turns), *courses_of(self.facts))
        return self._courses

    def in_flight(self, now: datetime) -> list[Turn]:
        """Return the turns that are not over, oldest first, without those that had no event for too long."""
        declared = self.facts.declared
        stale = stale_after(declared.data.spec.rollout) if declared else STALE
        return [turn for turn in self.turns if turn.end is None and now - turn.news_at < stale]

    @property
    def last(self) -> TurnCompleted | None:
        """Return the turn that ended last, of those that did not begin again."""
        over = (turn.completed.data for turn in self.turns if turn.completed and turn.end is not None)
        names = {turn.turn_id for turn in self.turns}
        others = (one.data for name, one in self.facts.completed.items() if name not in names)
        return max((*over, *others), key=lambda turn: (turn.ended_at, turn.turn_id), default=None)

    @property
    def place(self) -> Course | None:
        """Return where the project is: the course of the version that goes on and was moved last, else of
        the version that was served or ended last; None: there is none."""
        if not self._has_place:
            self._place, self._has_place = self._find_place(), True
        return self._place

    def _find_place(self) -> Course | None:
        courses = [*self.courses]
        asked, facts = self.facts.asked, self.facts
        since = (facts.requests, facts.versions, facts.rejections)
        if asked is not None and all(one.time < asked.time for answers in since for one in answers.values()):
            courses.append(Course(TurnStage.BUILDING, asked))
        serves = any(_serves(course) for course in courses)
        aside = (*ASIDE, TurnEnd.REPLACED) if serves else ASIDE
        candidates = [course for course in courses if course.end not in aside]
        return max(candidates, key=attrgetter("recency"), default=None)

    @property
    def open_alarms(self) -> dict[str, Alarm]:
        """Return the alarms that are not resolved, by id, oldest first. An alarm of an earlier release, which
        has no id, is never resolved; it counts as over once a version is requested."""
        facts = self.facts
        asked = facts.order[-1][0] if facts.order else None
        left = {
            name: alarm
            for name, alarm in facts.alarms.items()
            if name not in facts.resolved and (alarm.data.alarm_id or asked is None or asked < alarm.time)
        }
        return dict(sorted(left.items(), key=lambda one: (one[1].time, one[0])))


def _serves(course: Course) -> bool:
    return course.stage is TurnStage.PRODUCTION and course.end in (None, TurnEnd.COMPLETED)
