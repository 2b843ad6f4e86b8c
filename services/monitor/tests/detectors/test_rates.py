"""Every detector of a rate that must not rise: seldom wrong, soon there, and fair to the version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from tunewheel_monitor.detectors import Detector
from tunewheel_monitor.detectors.agreement import Agreement
from tunewheel_monitor.detectors.corrections import Corrections
from tunewheel_monitor.detectors.errors import Errors
from tunewheel_monitor.detectors.feedback import Feedback
from tunewheel_monitor.detectors.formats import Format
from tunewheel_monitor.detectors.invented import Invented
from tunewheel_monitor.detectors.latency import Latency
from tunewheel_monitor.detectors.rates import upper
from tunewheel_monitor.detectors.refusals import Refusals
from tunewheel_monitor.detectors.repetition import Repetition

from .conftest import alarms, answer, opening, rating, windows

Make = Callable[[bool], Any]
CASES: dict[str, tuple[Detector, Make]] = {
    "format": (Format(), lambda bad: answer(format_valid=not bad)),
    "refusals": (Refusals(), lambda bad: answer(refusal=bad)),
    "repetition": (Repetition(), lambda bad: answer(repetition=0.5 if bad else 0.05)),
    "invented": (Invented(), lambda bad: answer(invented=2 if bad else 0)),
    "feedback": (Feedback(), lambda bad: rating("down" if bad else "up")),
    "corrections": (Corrections(), lambda bad: rating(corrected=bad)),
    "agreement": (Agreement(), lambda bad: rating(agrees=not bad)),
    "errors": (
        Errors(),
        lambda bad: answer(outcome="failed" if bad else "answered", fault="engine" if bad else None),
    ),
}
LEARNT = [name for name in CASES if name != "errors"]


def drawn(rng: Any, make: Make, count: int, rate: float) -> list[Any]:
    return [make(bool(bad)) for bad in rng.random(count) < rate]


@pytest.mark.parametrize("name", LEARNT)
def test_a_rate_that_stays_gives_no_alarm_and_one_that_rises_by_twenty_points_does(name: str):
    rng = np.random.default_rng(1)
    detector, make = CASES[name]
    state = detector.open(opening())
    assert alarms(windows(detector, state, drawn(rng, make, 5_000, 0.1))) == []
    found = windows(detector, state, drawn(rng, make, 500, 0.3))
    assert found[-1].drifted
    assert 0.08 < found[-1].effect < 0.3
    assert found[-1].detector == name
    assert len(found[-1].completion_ids) == (60 if found[-1].action == "collect_labels" else 10)
    assert "items" in found[-1].reference
    assert detector.look(state) is None, "nothing new was seen"


@pytest.mark.parametrize("name", LEARNT)
def test_a_version_that_is_worse_from_its_first_day_is_found_out(name: str):
    rng = np.random.default_rng(2)
    detector, make = CASES[name]
    before = detector.open(opening())
    windows(detector, before, drawn(rng, make, 1_000, 0.1))
    state = detector.open(opening(predecessor=before))
    assert alarms(windows(detector, state, drawn(rng, make, 600, 0.3)))
    # what was bad is no standard for the version after it either
    after = detector.open(opening(predecessor=state))
    assert alarms(windows(detector, after, drawn(rng, make, 600, 0.3)))


def test_a_holdout_is_the_standard_of_the_format():
    rng = np.random.default_rng(3)
    detector, make = CASES["format"]
    for invalid, alarm in ((2, True), (40, False)):
        state = detector.open(opening(holdout=(invalid, 200)))
        assert bool(alarms(windows(detector, state, drawn(rng, make, 600, 0.2)))) is alarm


def test_a_small_rise_is_not_worth_an_alarm():
    rng = np.random.default_rng(4)
    detector, make = CASES["format"]
    state = detector.open(opening(holdout=(0, 1_000)))
    found = windows(detector, state, drawn(rng, make, 5_000, 0.03))
    assert alarms(found) == []


def test_clients_own_prompts_and_failures_do_not_count():
    for name, item in (
        ("format", answer(format_valid=False, overrides=("max_tokens",))),
        ("refusals", answer(refusal=True, overrides=("system_prompt",))),
        ("repetition", answer(repetition=0.9, overrides=("temperature",))),
        ("invented", answer(invented=3, overrides=("system_prompt",))),
        ("errors", answer(outcome="failed", fault="client")),
        ("errors", answer(outcome="cancelled")),
    ):
        detector, _ = CASES[name]
        assert windows(detector, detector.open(opening()), [item] * 300) == []


def test_a_total_outage_is_seen_in_its_first_window():
    detector, make = CASES["errors"]
    state = detector.open(opening())
    assert alarms(windows(detector, state, [make(False)] * 5_000)) == []
    found = windows(detector, state, [make(False)] * 90 + [make(True)] * 10)
    assert alarms(found) == [0]
    assert found[0].action == "investigate"


def test_failures_within_the_budget_are_none():
    rng = np.random.default_rng(5)
    detector, make = CASES["errors"]
    assert alarms(windows(detector, detector.open(opening()), drawn(rng, make, 20_000, 0.01))) == []


def test_twice_the_time_is_seen_and_the_hours_of_the_day_are_not():
    rng = np.random.default_rng(6)
    detector = Latency()

    def taking(count: int, factor: float) -> list[Any]:
        return [answer(latency_seconds=float(s)) for s in factor * rng.lognormal(0, 0.5, count)]

    state = detector.open(opening())
    for _ in range(20):
        assert alarms(windows(detector, state, taking(100, 1.0) + taking(100, 1.2))) == []
    after = detector.open(opening(predecessor=state))
    for begun in (state, after):
        found = windows(detector, begun, taking(600, 2.5))
        assert found[-1].drifted
        assert found[-1].action == "investigate"


def test_one_user_of_answers_weighs_little():
    detector, _ = CASES["format"]
    state = detector.open(opening(holdout=(0, 1_000)))
    bad, good = answer(format_valid=False, user="one"), answer(format_valid=True)
    found = windows(detector, state, [bad if n % 2 else good for n in range(2_000)])
    assert max(finding.statistic for finding in found) < 0.11


def test_the_upper_end_is_wilsons():
    assert upper(0, 100) == pytest.approx(0.0515, abs=1e-3)
    assert upper(100, 1_000) == pytest.approx(0.1243, abs=1e-3)
