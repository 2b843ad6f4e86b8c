"""The bounds hold: by hand on small cases, by simulation on many."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tunewheel_monitor.rollout import sequences
from tunewheel_monitor.rollout.verdicts import BETA, EACH

ARMS, LONGEST = 3_000, 500
VALUES = np.array([-1.0, 0.0, 1.0])


def test_the_wealth_is_that_of_gamblers_with_fixed_stakes():
    seen = (0.0, 1.0, -1.0, 0.25, 0.0)
    gamblers = [math.prod(1 + stake * (0.1 - d) / 0.9 for d in seen) for stake in sequences.STAKES]
    counts = {"0.0000": 2, "1.0000": 1, "-1.0000": 1, "0.2500": 1}
    values, times = np.array([float(v) for v in counts]), np.array(list(counts.values()))
    assert math.exp(sequences.evidence_below(values, times, 0.1)) == pytest.approx(np.mean(gamblers))


def test_an_interval_is_what_was_not_refuted():
    counts = {"0.0000": 180, "1.0000": 15, "-1.0000": 5}
    low, high = sequences.lower(counts, 0.01), sequences.upper(counts, 0.05)
    assert sequences.mean(counts) == pytest.approx(0.05)
    assert low < 0.05 < high
    step = 2 * sequences.NARROW
    assert sequences.is_below(counts, high + step, 0.05)
    assert not sequences.is_below(counts, high - step, 0.05)
    assert sequences.is_above(counts, low - step, 0.01)
    assert not sequences.is_above(counts, low + step, 0.01)


def test_where_nothing_was_seen_nothing_is_shown():
    assert (sequences.lower({}, 0.05), sequences.upper({}, 0.05)) == (-1, 1)
    assert not sequences.is_below({}, 0.9, 0.05)
    assert not sequences.is_above({}, -0.9, 0.05)
    assert sequences.upper({"1.0000": 500}, 0.05) == 1
    assert not sequences.is_below({"0.0000": 500}, 1.0, 0.05)  # a margin of everything is no test


def simulated(candidate: float, champion: float) -> dict[str, Any]:
    """Return how trials of ``ARMS`` pairs of arms end, by one figure at a margin of .10."""
    rng = np.random.default_rng(16)
    drawn = rng.random((2, ARMS, LONGEST))
    differences = (drawn[0] < candidate).astype(np.int8) - (drawn[1] < champion)
    times = np.stack([np.cumsum(differences == value, axis=1) for value in VALUES], axis=-1)[:, 19::5]
    means = (times @ VALUES) / times.sum(axis=-1)
    harmed = sequences.evidence_below(-VALUES, times, 0.0) >= -math.log(EACH)
    failed = first(harmed & (means >= 0.05))
    passed = first(sequences.evidence_below(VALUES, times, 0.1) >= -math.log(BETA))
    return {
        "passed": float(np.mean(passed < failed)),
        "failed": float(np.mean(failed < passed)),
        "median": float(np.median(20 + 5 * np.minimum(passed, failed))),
    }


def first(shown: NDArray[np.bool_]) -> NDArray[np.int64]:
    return np.where(shown.any(axis=1), shown.argmax(axis=1), LONGEST)


@pytest.mark.parametrize(("invalid", "most"), [(0.0, 45), (0.05, 90), (0.1, 150)])
def test_equals_pass_soon_and_seldom_fail(invalid: float, most: float):
    found = simulated(invalid, invalid)
    assert found["failed"] <= 0.01
    assert found["passed"] >= 0.95
    assert found["median"] <= most


@pytest.mark.parametrize("champion", [0.0, 0.05])
def test_what_is_worse_by_the_margin_seldom_passes(champion: float):
    found = simulated(champion + 0.1, champion)
    assert found["passed"] <= 0.05
    assert found["failed"] >= 0.75
