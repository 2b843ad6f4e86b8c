from __future__ import annotations

from math import sqrt
from typing import Any

import numpy as np
import pytest
from tunewheel_eval.calibration import FEWEST_ROWS, calibrated
from tunewheel_outputs.confidence import logit


def drawn(rng: Any, count: int, *, intercept: float, slope: float, spread: float = 0.0) -> Any:
    sure = rng.beta(3, 1, count)
    labels = rng.integers(20, size=count)
    share = 1 / (1 + np.exp(-intercept - slope * np.array([logit(one) for one in sure])))
    share = np.clip(share + rng.normal(0, spread, 20)[labels], 0, 1)
    right = rng.random(count) < share
    return [(float(p), float(hit), f"label-{n}") for p, hit, n in zip(sure, right, labels, strict=True)]


@pytest.mark.parametrize(("intercept", "slope"), [(0.0, 1.0), (-1.0, 0.4), (1.0, 1.5)])
def test_the_curve_is_found_within_its_errors(intercept: float, slope: float):
    rng = np.random.default_rng(31)
    off = []
    for _ in range(40):
        found = calibrated(drawn(rng, 400, intercept=intercept, slope=slope))
        assert found is not None
        assert found.rows == 400
        off.append((found.intercept - intercept) / sqrt(found.covariance[0]))
        off.append((found.slope - slope) / sqrt(found.covariance[2]))
    assert 0.7 < float(np.sqrt(np.mean(np.square(off)))) < 1.3


def test_labels_of_unequal_accuracy_are_told_from_equal_ones():
    rng = np.random.default_rng(31)
    even, uneven = (calibrated(drawn(rng, 4_000, intercept=0, slope=1, spread=one)) for one in (0.0, 0.2))
    assert even is not None
    assert uneven is not None
    assert even.spread < 0.05
    assert 0.1 < uneven.spread < 0.25


@pytest.mark.parametrize("hit", [0.0, 1.0])
@pytest.mark.parametrize("share", [1e-12, 0.5, 1.0])
def test_rows_that_are_all_alike_give_a_finite_curve(share: float, hit: float):
    found = calibrated([(share, hit, "bell")] * 200)
    assert found is not None
    estimate = 1 / (1 + np.exp(-found.intercept - found.slope * logit(share)))
    assert abs(estimate - hit) < 0.15


def test_few_rows_have_no_curve():
    assert calibrated([(0.5, 1.0, "bell")] * (FEWEST_ROWS - 1)) is None
