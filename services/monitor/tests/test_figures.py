"""What each window tells of every detector, before and besides alarms."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any, get_args

import pytest
from tunewheel_contracts.events.monitoring import DriftResolved, InferenceScored, WindowJudged
from tunewheel_contracts.events.production import DriftDetected
from tunewheel_contracts.formats.confidence import Calibration
from tunewheel_contracts.formats.drift_spec import DetectorName
from tunewheel_monitor.detectors import Finding
from tunewheel_monitor.detectors.errors import Errors
from tunewheel_monitor.figures import POINTS, TOLD_EVERY, tell
from tunewheel_monitor.fold import Facts, fold
from tunewheel_monitor.slices import LATELY, MOST_VALUES, OTHER
from tunewheel_monitor.state import ProjectState, Version

from .conftest import START, spec_of
from .scores import answer, facts, novel, rating

SLOWLY = timedelta(minutes=5)
CALM = Finding(
    "errors", "share", 0.01, 0.02, 100, 1.0, 0.001, -0.01, "rise", 0.03, "a budget of 2%", "investigate"
)


def run(
    items: Sequence[InferenceScored], known: Facts | None = None, state: ProjectState | None = None
) -> list[Any]:
    state, known = state or ProjectState(), known or facts()
    return [said.data for item in items for said in fold(state, item, known)]


def figures(events: Sequence[Any], detector: str) -> list[WindowJudged]:
    return [one for one in events if isinstance(one, WindowJudged) and one.detector == detector]


def drift(**changes: Any) -> Facts:
    return facts(spec=spec_of(drift={"window": 20, "cooldown_completions": 30} | changes))


def slow(n: int, **changes: Any) -> InferenceScored:
    """Return the ``n``-th answer, each five minutes after the one before."""
    return answer(n, at=START + n * SLOWLY, **changes)


def test_each_window_tells_what_was_usual_and_what_is_now() -> None:
    told = figures(
        run([slow(n, novel=n % 4 == 0, novelty=0.25 if n % 4 else 0.9) for n in range(40)]), "novelty"
    )
    assert [one.windows for one in told] == [1, 2]
    last = told[-1]
    assert (last.figure_id, last.model_id, last.dataset_id) == ("desk/novelty", "desk-1", "ds-1")
    assert (last.items, last.statistic, last.usual, last.effect) == (20, 0.25, 0.05, 0.2)
    assert last.floor == 0.015
    assert last.series.statistic == (0.25, 0.25)
    assert last.series.ended_at == (START + 19 * SLOWLY, START + 39 * SLOWLY)


def test_a_detector_is_calm_then_near_then_alarmed_and_silent_without_anything_to_measure() -> None:
    shifted = [slow(n) for n in range(100)] + [slow(n, format_valid=n % 20 > 7) for n in range(100, 200)]
    events = run(shifted)
    stood = [one.state for one in figures(events, "format")]
    assert stood == ["calm"] * 5 + ["near"] + ["alarm"] * 4
    (alarm,) = [one for one in events if isinstance(one, DriftDetected) and one.signal == "format"]
    assert figures(events, "format")[-1].alarm_id == alarm.alarm_id
    assert {one.state for one in figures(events, "labels")} == {"silent"}
    assert [one.state for one in figures(events, "feedback")] == ["silent"], "nobody rated"
    assert {one.detector for one in events if isinstance(one, WindowJudged)} == set(get_args(DetectorName))


def test_figures_are_told_once_a_minute_and_at_once_where_the_state_changes() -> None:
    fast = [answer(n, at=START + timedelta(milliseconds=n)) for n in range(200)]
    broken = [answer(n, at=START + timedelta(milliseconds=n), format_valid=False) for n in range(200, 220)]
    later = [answer(n, at=START + TOLD_EVERY + timedelta(seconds=n)) for n in range(220, 240)]
    told = figures(run([*fast, *broken, *later]), "format")
    assert [(one.windows, one.state) for one in told] == [(1, "calm"), (11, "alarm"), (12, "alarm")]
    assert [one.windows for one in figures(run([*fast, *later]), "errors")] == [1, 11]


def test_the_clock_of_one_gateway_that_runs_ahead_silences_nothing() -> None:
    ahead = [answer(n, at=START + timedelta(days=300)) for n in range(20)]
    told = figures(run([*ahead, *(slow(n) for n in range(20, 60))]), "format")
    assert [one.windows for one in told] == [1, 2, 3]


@pytest.mark.parametrize("apart", [timedelta(milliseconds=50), timedelta(seconds=20), timedelta(hours=6)])
def test_a_series_is_bounded_and_spans_half_a_day_of_dense_traffic_or_each_window_of_sparse_traffic(
    apart: timedelta,
) -> None:
    told, windows = (
        partial(tell, ProjectState(), Version("desk-1", "ds-1", 1), Errors(), project="desk"),
        5_000,
    )
    said = [one for n in range(windows) for one in told(at=START + n * apart, finding=CALM)]
    series = said[-1].data.series
    assert len(series.ended_at) <= POINTS
    assert len(series.items) == len(series.effect) == len(series.p_value) == len(series.ended_at)
    assert series.ended_at == tuple(sorted(series.ended_at))
    span = series.ended_at[-1] - series.ended_at[0]
    assert span >= min(timedelta(hours=12), windows * apart / 2)


def test_what_restarts_tells_the_same() -> None:
    items = [slow(n, format_valid=n % 7 > 0, client=f"key-{n % 3}") for n in range(200)]
    state, events = ProjectState(), list[Any]()
    for begin in range(0, 200, 35):
        state = ProjectState.from_json(json.loads(json.dumps(state.as_json())))
        events += run(items[begin : begin + 35], None, state)
    assert events == run(items)


def test_a_state_of_an_earlier_release_goes_on_without_figures_of_the_past() -> None:
    state = ProjectState()
    run([slow(n) for n in range(40)], None, state)
    earlier = state.as_json()
    del earlier["figures"]
    again = ProjectState.from_json(json.loads(json.dumps(earlier)))
    assert [one.windows for one in figures(run([slow(n) for n in range(40, 60)], None, again), "format")] == [
        1
    ]


def test_a_detector_that_is_switched_off_alone_ends_its_alarm_and_says_so_once() -> None:
    state = ProjectState()
    broken = [slow(n, format_valid=False, outcome="answered") for n in range(20)]
    assert figures(run(broken, None, state), "format")[-1].state == "alarm"
    events = run([slow(n, format_valid=False) for n in range(20, 80)], drift(disabled=["format"]), state)
    (ended,) = [one for one in events if isinstance(one, DriftResolved)]
    assert (ended.detector, ended.reason) == ("format", "off")
    assert [one.state for one in figures(events, "format")] == ["off"]
    assert figures(events, "errors"), "its family goes on"
    on = run([slow(n, format_valid=False) for n in range(80, 100)], None, state)
    assert [one.state for one in figures(on, "format")] == ["alarm"]


def test_drift_that_is_switched_off_switches_every_detector_off() -> None:
    state = ProjectState()
    run([slow(n) for n in range(20)], None, state)
    off = run([slow(20)], drift(enabled=False), state)
    assert {one.state for one in off if isinstance(one, WindowJudged)} == {"off"}
    assert run([slow(21)], drift(enabled=False), state) == []


def test_an_alarm_about_ratings_that_stop_leaves_silence() -> None:
    state = ProjectState()
    good = [rating(n, "up") for n in range(120)]
    told = run([answer(0), *good, *(rating(n, "down") for n in range(120, 160))], None, state)
    assert figures(told, "feedback")[-1].state == "alarm"
    weeks = [answer(n, at=START + timedelta(days=n)) for n in (1, 9)]
    assert [one.state for one in figures(run(weeks, None, state), "feedback")] == ["silent"]


@pytest.mark.parametrize(("floor", "alarms"), [(0.05, 1), (0.2, 0), (None, 1)])
def test_a_floor_of_the_spec_decides_from_which_effect_on_an_alarm_is_raised(
    floor: float | None, alarms: int
) -> None:
    known = drift(floors={"format": floor}) if floor else facts()
    events = run([slow(n, format_valid=n % 20 > 2) for n in range(400)], known)
    assert sum(isinstance(one, DriftDetected) and one.signal == "format" for one in events) == alarms
    last = figures(events, "format")[-1]
    assert last.floor == (floor or 0.05)
    assert last.state == ("alarm" if alarms else "near"), "evidence below the floor is near an alarm"


def test_a_lower_floor_of_a_mixture_is_also_what_its_evidence_is_tested_against() -> None:
    labels = [slow(n, label="a" if n % 10 < 5 else "b") for n in range(600)]
    moved = [slow(n, label="a" if n % 25 < 18 else "b") for n in range(600, 1_400)]
    raised = {
        floor: sum(
            isinstance(one, DriftDetected) and one.signal == "labels"
            for one in run([*labels, *moved], drift(floors={"labels": floor}))
        )
        for floor in (0.05, 0.25)
    }
    assert raised == {0.05: 1, 0.25: 0}


def test_slices_show_where_the_bad_items_are() -> None:
    items = [slow(n, client=f"key-{n % 2}", label="abc"[n % 3], format_valid=n % 2 == 0) for n in range(60)]
    slices = {(one.by, one.value): one for one in figures(run(items), "format")[-1].slices}
    assert (slices["key", "key-0"].share, slices["key", "key-1"].share) == (0.0, 1.0)
    assert [slices["label", name].items for name in "abc"] == [20.0, 20.0, 20.0]


def test_a_property_with_one_value_has_no_slices() -> None:
    events = run([slow(n, client="web", format_valid=n % 2 == 0) for n in range(40)])
    assert figures(events, "format")[-1].slices == ()


def test_slices_of_ratings_count_ratings_alone() -> None:
    answers = [slow(n, client=f"key-{n % 2}") for n in range(20)]
    rated = [rating(n, "down" if n % 2 else "up", client=f"key-{n % 2}") for n in range(140)]
    shares = {one.value: one.share for one in figures(run([*answers, *rated]), "feedback")[-1].slices}
    assert shares == {"key-0": 0.0, "key-1": 1.0}


def test_slices_are_few_however_many_values_there_are_and_older_items_fade() -> None:
    state = ProjectState()
    items = [slow(n, client="web" if n % 2 else f"key-{n}", format_valid=n % 9 > 0) for n in range(3_000)]
    last = figures(run(items, None, state), "format")[-1]
    assert len(last.slices) <= MOST_VALUES
    assert {"web", OTHER} <= {one.value for one in last.slices}
    assert sum(seen for seen, _ in state.slices["completion"]["key"].values()) <= LATELY + 20


@pytest.mark.parametrize("values", [2 * MOST_VALUES, 3 * MOST_VALUES])
def test_a_window_of_many_labels_languages_and_keys_tells_the_most_frequent_slices(values: int) -> None:
    known, many = drift(window=200), ("label", "language", "client")
    items = [
        slow(n, format_valid=n % 2 == 0, **{by: f"{by}-{n % values if n < 190 else 0}" for by in many})
        for n in range(200)
    ]
    told = figures(run(items, known), "format")[-1].slices
    assert 3 * MOST_VALUES <= len(told) <= 48
    assert {one.by for one in told if one.value.endswith("-0")} == {"label", "language", "key"}


def test_figures_name_no_completion() -> None:
    state = ProjectState()
    run([novel(n, format_valid=False, client="web") for n in range(60)], None, state)
    assert "c-000" not in json.dumps([state.figures, state.slices])


def test_the_estimated_accuracy_is_told_with_its_interval() -> None:
    known = drift(detectors=["format"])
    curve = Calibration(rows=300, intercept=0.0, slope=1.0, covariance=(0.04, 0.0, 0.01), spread=0.1)
    items = [slow(n, measures={"confidence": 0.8}, label=f"label-{n % 7}") for n in range(160)]
    last = figures(run(items, replace(known, calibration=curve)), "confidence")[-1]
    assert (last.statistic_name, last.statistic, last.usual) == ("estimated accuracy", 0.8, 0.8)
    assert last.low is not None
    assert last.high is not None
    assert 0.65 < last.low < 0.8 < last.high < 0.95
    assert "300 held-out rows" in last.reference
    unknown = figures(run(items, known), "confidence")
    assert {one.state for one in unknown} == {"silent"}
