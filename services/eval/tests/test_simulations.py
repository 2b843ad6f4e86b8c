"""Verdicts on simulated models: how often equal ones are called better, and what differs is seen.

The seeds are fixed; ``make bench NAME=verdict`` has thousands of rounds of more kinds."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_eval.comparisons import Measured
from tunewheel_eval.significance import Scores, compare
from tunewheel_eval.verdict import judge

Floats = NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], tuple[Floats, Floats, NDArray[np.int64]]]


def pairs(rng: np.random.Generator, rows: int, *, won: float, lost: float) -> tuple[Floats, Floats]:
    drawn, both = rng.random(rows), rng.random(rows) < 0.6
    candidate = np.where(drawn < won, True, np.where(drawn < won + lost, False, both))
    other = np.where(drawn < won, False, np.where(drawn < won + lost, True, both))
    return candidate.astype(np.float64), other.astype(np.float64)


def hits(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    return *pairs(rng, rows, won=0.15, lost=0.15), np.arange(rows)


def skewed(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    return rng.beta(0.3, 2, rows), rng.beta(0.3, 2, rows), np.arange(rows)


def groups(rng: np.random.Generator, rows: int) -> tuple[Floats, Floats, NDArray[np.int64]]:
    """Four rows that are one row four times: as independent ones they made 26 % "better"."""
    clusters = np.arange(rows) // 4
    candidate, other = pairs(rng, clusters[-1] + 1, won=0.15, lost=0.15)
    return candidate[clusters], other[clusters], clusters


@pytest.mark.parametrize("rows", [5, 20, 60])
@pytest.mark.parametrize("draw", [hits, skewed, groups])
def test_equal_models_are_seldom_called_better(draw: Draw, rows: int) -> None:
    rng = np.random.default_rng(14)
    better = 0
    for _ in range(150):
        candidate, other, clusters = draw(rng, rows)
        test = "mean" if draw is skewed else "proportion"
        found = compare(Scores(candidate), Scores(other), clusters, test=test, alpha=0.05)
        better += found.low > 1e-9 and found.p_value <= 0.05
    assert better <= 14  # .05 of 150, and 2.4 standard deviations


def test_five_points_more_are_seen_in_five_hundred_rows() -> None:
    rng = np.random.default_rng(5)
    seen = 0
    for _ in range(150):
        candidate, other = pairs(rng, 500, won=0.125, lost=0.075)
        found = compare(Scores(candidate), Scores(other), np.arange(500), test="proportion", alpha=0.05)
        seen += found.low > 1e-9 and found.p_value <= 0.05
    assert seen >= 0.7 * 150


@pytest.mark.parametrize(
    ("true", "least", "most"),
    [(-0.15, 0.0, 0.05), (0.0, 0.8, 1.0)],
)
def test_forgetting_is_told_from_keeping(true: float, least: float, most: float) -> None:
    rng = np.random.default_rng(7)
    criterion = Criterion(metric="regression_accuracy", over_base=-0.1)
    met = 0
    for _ in range(40):
        candidate, base = pairs(rng, 200, won=0.1 + true / 2 + abs(true) / 2, lost=0.1 + abs(true))
        metric = Measured(
            name="regression_accuracy", test="proportion", lower_is_better=False, lowest=0.0, highest=1.0,
            on="regression", clusters=np.arange(200),
            scores={Role.CANDIDATE: Scores(candidate), Role.BASE: Scores(base)},
        )  # fmt: skip
        task = TaskSpec(system_prompt="s")
        (check,) = judge((criterion,), {metric.name: metric}, task, resolution=0.05, seed=0)
        met += check.outcome == "met"
    assert least <= met / 40 <= most
