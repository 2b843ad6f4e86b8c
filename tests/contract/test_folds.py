"""All folds of the log agree with the registry's lifecycle and with what happened to each turn."""

from __future__ import annotations

from functools import cache

import pytest
from tunewheel_testing.folds import FOLDS, disagreements
from tunewheel_testing.random_logs import OUTCOMES, TRIED, RandomLog, random_log
from tunewheel_wheel import facts, models, turn
from tunewheel_wheel.wheel import Wheel

LOGS = 500
"""``tests/bench/folds.py`` takes 10,000."""


@cache
def logs() -> list[RandomLog]:
    return [random_log(seed) for seed in range(LOGS)]


@pytest.mark.parametrize("fold", FOLDS)
def test_a_fold_agrees_with_what_happened(fold: str) -> None:
    found = {seed: said for seed, log in enumerate(logs()) if (said := disagreements(log, fold))}
    assert not found, f"{len(found)} of {LOGS} logs, such as {next(iter(found.items()))}"


def test_the_logs_hold_every_stage_and_every_end_and_runs_that_were_trained_again() -> None:
    turns = [turn for log in logs() for turn in log.turns.values()]
    assert {turn.stage for turn in turns} >= {"building", *TRIED, "production"}
    assert {turn.end for turn in turns} == {"", "replaced", "completed", *OUTCOMES}
    again = [
        log
        for log in logs()
        if any(
            event.data.type == "train.failed"
            and any(
                later.data.type == "train.started" and later.data.run_id == event.data.run_id
                for later in log.events[at:]
            )
            for at, event in enumerate(log.events)
        )
    ]
    assert len(again) > LOGS // 20
    assert sum(len({event.time for event in log.events}) < len(log.events) for log in logs()) > LOGS // 2


def test_what_is_asked_after_every_event_is_what_all_events_together_tell() -> None:
    for seed, log in enumerate(logs()[:100]):
        asked, events = Wheel(), log.in_some_order(seed)
        for count, event in enumerate(events, 1):
            asked.apply(event)
            told = asked.turns, asked.place  # so that what is kept between two questions shows
            if count % 5 == 0 or count == len(events):
                anew = Wheel()
                for earlier in events[:count]:
                    anew.apply(earlier)
                assert told == (anew.turns, anew.place), f"log {seed}, event {count}"


def test_a_fold_that_orders_the_attempts_at_a_run_by_the_clock_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for module in (facts, turn):
        monkeypatch.setattr(
            module, "order_of_training", lambda event: (event.time, event.data.type, event.id)
        )
    assert sum(bool(disagreements(log, "wheel_turns")) for log in logs()) > LOGS // 100


def test_a_fold_that_orders_steps_by_the_clock_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "order_of", lambda step: (0, step.time, step.id))
    assert sum(bool(disagreements(log, "console_models")) for log in logs()) > LOGS // 100
