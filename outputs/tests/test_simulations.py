"""Verdicts on simulated models: how often equal ones are called better, and what differs is seen.

The seeds are fixed; ``make bench NAME=verdict`` has thousands of rounds of more kinds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import Role
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Scores, Test, compare, figure_interval
from tunewheel_verdicts.verdict import judge, outcome_of

NIGHTLY = pytest.mark.nightly("matrices")
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


@pytest.mark.parametrize("rows", [5, 20, pytest.param(60, marks=NIGHTLY)])
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
    [(-0.15, 0.0, 0.05), pytest.param(0.0, 0.8, 1.0, marks=NIGHTLY)],
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


def zipf(rows: int, customers: int) -> list[int]:
    shares = 1 / np.arange(1, customers + 1)
    sizes = np.maximum(1, (shares / shares.sum() * rows).astype(int))
    sizes[0] += max(0, rows - sizes.sum())
    while sizes.sum() > rows:
        sizes[sizes.argmax()] -= 1
    return sizes.tolist()


SIZES = {
    "each row its own": [1] * 200,
    "one of 30 %": [60] + [1] * 140,
    "40, Zipf": zipf(200, 40),
    "80, lognormal": [46, 28, 20, 14, 10, 7, 5, 4, 3, 3, *[2] * 10, *[1] * 40],
    "5 customers": [40] * 5,
    "8 customers": [25] * 8,
}


def paired_customers(
    rng: np.random.Generator, sizes: list[int], correlation: float, advantage: float
) -> dict[str, Measured]:
    """Draw hits of candidate and champion, of which a fifth differ. A row repeats its customer's outcome with
    a probability that gives two rows of a customer this correlation (Lunn and Davies, 1998)."""
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    won, lost = (0.2 + advantage) / 2, (0.2 - advantage) / 2
    shares = [won, lost, 0.75 - won, 0.25 - lost]  # candidate alone right, champion alone, both, neither
    own = rng.choice(4, len(clusters), p=shares)
    common = rng.choice(4, len(sizes), p=shares)[clusters]
    outcome = np.where(rng.random(len(clusters)) < correlation**0.5, common, own)
    hit = {Role.CANDIDATE: (0, 2), Role.CHAMPION: (1, 2)}
    return {
        "label_accuracy": Measured(
            name="label_accuracy", test="proportion", lower_is_better=False, lowest=0.0, highest=1.0,
            on="holdout", clusters=clusters,
            scores={role: Scores(np.isin(outcome, right).astype(np.float64)) for role, right in hit.items()},
        )
    }  # fmt: skip


def outcomes(sizes: list[int], correlation: float, advantage: float, draws: int) -> list[str]:
    rng = np.random.default_rng(26)
    criterion = Criterion(metric="label_accuracy", over_champion=-0.15, significance=0.5)
    task = TaskSpec(system_prompt="s")
    return [
        str(judge((criterion,), drawn, task, resolution=0.05, seed=0)[0].outcome)
        for drawn in (paired_customers(rng, sizes, correlation, advantage) for _ in range(draws))
    ]


@pytest.mark.parametrize(
    ("sizes", "least", "draws"),
    [("each row its own", 0.95, 20), ("one of 30 %", 0.8, 100), ("40, Zipf", 0.7, 100)],
)
def test_ten_points_more_meet_the_margin_whatever_the_customers_sizes(
    sizes: str, least: float, draws: int
) -> None:
    assert outcomes(SIZES[sizes], 0.0, 0.1, draws).count("met") >= least * draws


@pytest.mark.parametrize("correlation", [0.2, *(pytest.param(one, marks=NIGHTLY) for one in (0.0, 1.0))])
@pytest.mark.parametrize("sizes", [name for name in SIZES if name != "each row its own"])
def test_customers_of_any_size_neither_reject_a_better_model_nor_pass_a_worse_one(
    sizes: str, correlation: float
) -> None:
    assert "missed" not in outcomes(SIZES[sizes], correlation, 0.1, 40)
    # at the margin .05 may pass; 133 of each correlation are 400 of each shape
    assert outcomes(SIZES[sizes], correlation, -0.15, 133).count("met") <= 14


@pytest.mark.parametrize("correlation", [0.1, 0.2, 1.0])
@pytest.mark.parametrize(("rows", "customers", "truth"), [(200, 40, 0.95), (200, 150, 0.85), (60, 40, 0.8)])
def test_a_minimum_that_is_the_truth_is_seldom_met_by_customers_of_unequal_size(
    rows: int, customers: int, truth: float, correlation: float
) -> None:
    rng, sizes = np.random.default_rng(6), zipf(rows, customers)
    clusters = np.repeat(np.arange(customers), sizes)

    def drawn(share: float) -> Floats:
        common = (rng.random(customers) < share)[clusters]
        repeats = rng.random(rows) < correlation**0.5
        return np.where(repeats, common, rng.random(rows) < share).astype(np.float64)

    met = 0
    for _ in range(133):
        found = figure_interval(
            Scores(drawn(truth)), clusters, test="proportion", alpha=0.05, others=[drawn(0.35)]
        )
        met += found.low >= truth
    assert met <= 14


def equal_models(rng: np.random.Generator, sizes: list[int], **facts: Any) -> dict[str, Measured]:
    """Two equal models by a share of right answers, a mean, and a ratio of which less is better. The rows of
    a customer are alike."""
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    (accuracy,) = paired_customers(rng, sizes, 0.2, 0.0).values()
    noise = 0.3 * rng.normal(size=(2, len(clusters))) + 0.2 * rng.normal(size=(2, len(sizes)))[:, clusters]
    tokens = rng.integers(5, 60, len(clusters)).astype(np.float64)

    def of(test: Test, highest: float, values: Floats, weights: Floats | None = None) -> Measured:
        scores = zip((Role.CANDIDATE, Role.CHAMPION), values, strict=True)
        return Measured(
            name="", test=test, lower_is_better=weights is not None, lowest=0.0, highest=highest,
            on="holdout", clusters=clusters, scores={role: Scores(one, weights) for role, one in scores},
        )  # fmt: skip

    found = {
        "label_accuracy": accuracy,
        "rouge_l": of("mean", 1.0, np.clip(0.5 + noise, 0, 1)),
        "perplexity": of("ratio", float("inf"), tokens * (2 + noise), tokens),
    }
    return {name: replace(one, name=name, **facts) for name, one in found.items()}


@pytest.mark.parametrize(
    ("rows", "significance", "facts"),
    [
        (75, 0.5, {}),
        pytest.param(75, None, {}, marks=NIGHTLY),
        pytest.param(200, 0.5, {}, marks=NIGHTLY),
        pytest.param(75, 0.5, {"repeat_spread": 0.02}, marks=NIGHTLY),
    ],
)
def test_an_equal_model_is_refused_at_most_once_in_twenty_by_all_criteria_together(
    rows: int, significance: float | None, facts: dict[str, float]
) -> None:
    """``significance: 0.5`` is .05 for each of ten looks. Refusals must not be given at .5."""
    rng, draws = np.random.default_rng(29), 150
    criteria = [
        Criterion(metric=name, over_champion=bound, significance=significance)
        for name, bound in (("label_accuracy", -0.1), ("rouge_l", 0.0), ("perplexity", -0.1))
    ]
    refused = 0
    for _ in range(draws):
        drawn = equal_models(rng, zipf(rows, 40), **facts)
        checks = judge(criteria, drawn, TaskSpec(system_prompt="s"), resolution=0.05, seed=0)
        refused += outcome_of(checks) == "missed"
    assert refused <= 14  # .05 of 150, and 2.4 standard deviations


@pytest.mark.parametrize(("advantage", "least", "most"), [(-0.2, 0.6, 1.0), (0.05, 0.0, 0.02)])
def test_a_model_that_is_shown_to_be_worse_is_refused_though_its_loss_may_be_within_the_margin(
    advantage: float, least: float, most: float
) -> None:
    found = [outcomes(zipf(100, 40), 0.0, advantage, 60).count("missed")]
    assert least <= found[0] / 60 <= most
