"""A month under a deterministic clock yields the turns that an expert would order, and no others.

What happens, and what an expert would do about it:

| day | what happens | alarm | turn |
|---|---|---|---|
| every | nights, weekends, intents that have their hours | none | none |
| 3 | the engine is away for two hours | errors: investigate | none |
| 4 | 200 times the same text from one sender in an hour | none | none |
| 8 on | a fifth of the questions is new | novelty, clusters: labels | one, once experts answered |
| 17 on | one key votes against the model in ever new names, more and more | none | none |
"""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest
from tunewheel_contracts.events.data import DatasetRequested
from tunewheel_contracts.events.monitoring import DriftResolved
from tunewheel_contracts.events.production import DriftDetected, RolloutJudged
from tunewheel_contracts.events.turns import TurnCompletedV2
from tunewheel_monitor.turns.facts import TurnLog
from tunewheel_turns.deciding import Step
from tunewheel_turns.facts import TurnFacts

from .traffic import NEW, OUTAGE, SHIFT_FROM, START
from .wheel import SPEC, Month

TURNS = [
    # begins on, ends by, for alarms of, how it ends
    (9, 14, {"novelty", "clusters"}, "helped"),
]
ALARMS = {
    # detector and day: what it suggests
    ("errors", 3): "investigate",
    ("novelty", 8): "collect_labels",
    ("clusters", 8): "collect_labels",
}


@pytest.fixture(scope="module")
def month() -> Month:
    month = Month()
    month.run()
    return month


def day(at: datetime) -> int:
    return (at - START).days


def test_exactly_the_turns_of_the_table_begin_and_end(month: Month) -> None:
    by_id = {alarm.alarm_id: alarm for alarm in month.of(DriftDetected)}
    begun = [event for event in month.told if isinstance(event.data, DatasetRequested)]
    ended = month.of(TurnCompletedV2)
    assert len(begun) == len(ended) == len(TURNS)
    for request, turn, (first, last, signals, outcome) in zip(begun, ended, TURNS, strict=True):
        assert first <= day(request.time) <= day(turn.ended_at) <= last
        assert {by_id[name].signal for name in turn.alarm_ids} & signals
        assert turn.outcome == outcome, turn.reasons


def test_alarms_come_where_something_happened_and_say_what_to_do(month: Month) -> None:
    said = {
        (alarm.signal, day(alarm.window.ended_at)): alarm.suggested_action
        for alarm in month.of(DriftDetected)
    }
    assert said == ALARMS
    assert len(month.of(DriftDetected)) == len(ALARMS)


def test_votes_of_one_key_are_heard_by_nobody_though_they_are_many(month: Month) -> None:
    (down, rated), (poisoned_down, poisoned) = np.sum(month.votes[:7], 0), np.sum(month.votes[24:], 0)
    assert down / rated < 0.15
    assert poisoned_down / poisoned > 0.3


def test_every_alarm_is_over_at_the_end(month: Month) -> None:
    raised = {alarm.alarm_id for alarm in month.of(DriftDetected)}
    assert {resolved.alarm_id for resolved in month.of(DriftResolved)} == raised


def test_the_shift_is_heard_within_a_day_and_the_outage_at_once(month: Month) -> None:
    heard = {(one.signal, day(one.window.ended_at)): one.window.ended_at for one in month.of(DriftDetected)}
    assert heard["novelty", 8] - SHIFT_FROM < timedelta(hours=12)
    assert OUTAGE[0] <= heard["errors", 3] < OUTAGE[1] + timedelta(hours=1)


def test_the_turn_waits_for_people(month: Month) -> None:
    assert {Step.CALM, Step.INVESTIGATE, Step.LABELS, Step.TURN, Step.IN_FLIGHT} <= month.waited
    (request,) = [event for event in month.told if isinstance(event.data, DatasetRequested)]
    assert request.time.hour >= 9
    assert request.time.weekday() < 5


def test_the_new_version_passes_its_canary_and_the_drifted_questions_are_answered_better(
    month: Month,
) -> None:
    assert [judged.verdict for judged in month.of(RolloutJudged)] == ["passed"]
    (turn,) = month.of(TurnCompletedV2)
    assert turn.before["novel"] > turn.after["novel"]
    assert turn.before["thumbs_down"] > turn.after["thumbs_down"]
    assert turn.cost["hours"] == 2.0
    assert NEW in month.traffic.asked.values()


def test_processes_that_start_after_the_log_deleted_drift_detected_know_the_same(month: Month) -> None:
    """At the hour when the turn was promoted, as after 31 days: the monitor still says whether it helped."""
    (end,) = (n for n, event in enumerate(month.told) if isinstance(event.data, TurnCompletedV2))
    known = []
    for deleted in ((), (DriftDetected,)):
        facts, turns = TurnFacts(), TurnLog()
        for event in month.told[:end]:
            if not isinstance(event.data, deleted):
                facts.apply(event)
                turns.apply(event)
        state, (turn,) = facts.state(SPEC), turns.open("desk")
        alarms = {(alarm.alarm_id, alarm.model_id) for alarm in turn.alarms}
        known.append((state.turns, [alarm.name for alarm in state.alarms], alarms))
    assert known[0] == known[1]
    assert known[0][2]
