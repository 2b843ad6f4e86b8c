"""The accuracy of labels is estimated without the truth, with an error that holds, and its fall is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.confidence import Calibration
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_monitor.detectors.confidence import Confidence
from tunewheel_monitor.detectors.protocol import Finding
from tunewheel_outputs.confidence import share_right

from .conftest import alarms, answer, opening, windows

OVERSURE = Calibration(rows=400, intercept=-0.5, slope=0.6, covariance=(0.04, -0.015, 0.01), spread=0.08)
KNOWN = OVERSURE.model_dump(mode="json")
LABELS = 30


def answers(rng: Any, count: int, *, sureness: float, known: Any = KNOWN, **fields: Any) -> Any:
    """Return answers, and whether each label is right. ``sureness`` 1: even probabilities from 0 to 1."""
    sure = rng.random(count) ** (1 / sureness)
    right = rng.random(count) < [share_right(one, known["intercept"], known["slope"]) for one in sure]
    labels = rng.integers(LABELS, size=count)
    made = [
        answer(measures={"confidence": float(one)}, label=f"label-{label}", **fields)
        for one, label in zip(sure, labels, strict=True)
    ]
    return made, right


def last(made: Any, **changes: Any) -> Finding | None:
    found = windows(Confidence(), Confidence().open(opening(calibration=OVERSURE, **changes)), made)
    return found[-1] if found else None


def test_the_estimate_is_within_its_interval_of_the_truth():
    rng = np.random.default_rng(31)
    inside = []
    for _ in range(60):
        errors = rng.multivariate_normal((0, 0), [[0.04, -0.015], [-0.015, 0.01]])
        truth = KNOWN | {"intercept": -0.5 + errors[0], "slope": 0.6 + errors[1]}
        made, right = answers(rng, 600, sureness=4.0, known=truth)
        found = last(made)
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.statistic < found.high < found.low + 0.25
        inside.append(found.low <= right[-300:].mean() <= found.high)
    assert np.mean(inside) >= 0.9


def test_traffic_of_few_labels_has_a_wider_interval():
    rng = np.random.default_rng(31)
    made, _ = answers(rng, 600, sureness=4.0)
    many, few = last(made), last([one.model_copy(update={"label": "a"}) for one in made])
    assert many is not None
    assert few is not None
    assert many.statistic == few.statistic
    assert few.high - few.low > 1.5 * (many.high - many.low)  # type: ignore[operator]


def test_accuracy_that_stays_gives_no_alarm_and_a_fall_does():
    rng = np.random.default_rng(31)
    detector, state = Confidence(), Confidence().open(opening(calibration=OVERSURE))
    calm, _ = answers(rng, 4_000, sureness=4.0)
    assert alarms(windows(detector, state, calm)) == []
    harder, _ = answers(rng, 600, sureness=0.7)
    found = windows(detector, state, harder)
    assert found[-1].drifted
    assert found[-1].effect >= 0.1
    assert found[-1].usual == pytest.approx(found[-1].statistic + found[-1].effect)
    assert (found[-1].action, len(found[-1].completion_ids)) == ("investigate", 10)
    easier, _ = answers(rng, 600, sureness=20.0)
    assert not windows(detector, state, easier)[-1].drifted


def test_a_moderate_change_of_the_mixture_gives_no_alarm():
    rng = np.random.default_rng(31)
    made = [one for n in range(40) for one in answers(rng, 100, sureness=4.0 if n % 8 < 4 else 2.8)[0]]
    detector = Confidence()
    assert alarms(windows(detector, detector.open(opening(calibration=OVERSURE)), made)) == []


def test_an_answer_without_a_label_counts_as_wrong():
    rng = np.random.default_rng(31)
    made, _ = answers(rng, 600, sureness=4.0)
    unlabelled = [one if n % 2 else answer(measures={"confidence": 0.0}) for n, one in enumerate(made)]
    before, after = last(made), last(unlabelled)
    assert before is not None
    assert after is not None
    assert after.statistic == pytest.approx(before.statistic / 2, abs=0.05)


@pytest.mark.parametrize("fields", [{"measures": {}}, {"overrides": ("system_prompt",)}])
def test_what_was_not_measured_or_is_not_the_model_s_own_is_left_out(fields: Any):
    rng = np.random.default_rng(31)
    made, _ = answers(rng, 600, sureness=4.0)
    assert last([one.model_copy(update=fields) for one in made]) is None


def test_without_a_calibration_nothing_is_estimated():
    rng = np.random.default_rng(31)
    made, _ = answers(rng, 600, sureness=4.0)
    detector = Confidence()
    assert windows(detector, detector.open(opening()), made) == []


def test_a_new_version_learns_its_own_standard():
    rng = np.random.default_rng(31)
    detector, before = Confidence(), Confidence().open(opening(calibration=OVERSURE))
    windows(detector, before, answers(rng, 2_000, sureness=20.0)[0])
    state = detector.open(opening(calibration=OVERSURE, predecessor=before))
    assert alarms(windows(detector, state, answers(rng, 2_000, sureness=1.0)[0])) == []


def test_one_user_counts_at_most_twenty_times_in_a_window():
    rng = np.random.default_rng(31)
    made, _ = answers(rng, 100, sureness=4.0, user="ann")
    state = Confidence().open(opening(calibration=OVERSURE))
    for one in made:
        Confidence().see(state, one)
    assert DriftSpec().window == 100
    assert state["sums"][0] == 20


@pytest.mark.parametrize("slope", [1e3, -1e3])
def test_a_very_steep_curve_counts_a_label_as_right_or_wrong(slope: float):
    steep = KNOWN | {"intercept": 0.0, "slope": slope}
    shares = [share_right(sure, steep["intercept"], steep["slope"]) for sure in (1e-9, 1.0)]
    assert sorted(shares) == pytest.approx([0.0, 1.0])
    assert (shares[0] < shares[1]) == (slope > 0)
