from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from tunewheel_verdicts.design_effect import effective_rows
from tunewheel_verdicts.proportions import clopper_pearson, mcnemar, paired_low, paired_p_value
from tunewheel_verdicts.sign_flips import DRAWS, flip
from tunewheel_verdicts.significance import (
    MAX_MEAN_NLL,
    Advantage,
    Scores,
    compare,
    figure_interval,
    perplexity,
    rows_needed,
)


def table(both: int, only_candidate: int, only_other: int, neither: int) -> tuple[Scores, Scores]:
    candidate = [1.0] * (both + only_candidate) + [0.0] * (only_other + neither)
    other = [1.0] * both + [0.0] * only_candidate + [1.0] * only_other + [0.0] * neither
    return Scores(np.array(candidate)), Scores(np.array(other))


def compared(candidate: Scores, other: Scores, clusters: Any = None, **asked: Any) -> Advantage:
    alone = np.arange(len(candidate.values))
    told = {"test": "proportion", "alpha": 0.05, **asked}
    return compare(candidate, other, alone if clusters is None else np.asarray(clusters), **told)


@pytest.mark.parametrize("difference", [-0.15, 0.0, 0.1])
@pytest.mark.parametrize("pairs", [1, 5, 40, 83, 300])
def test_the_probability_of_a_table_that_says_nothing_is_never_above_one(
    pairs: int, difference: float
) -> None:
    tables = [(mine, theirs) for mine in range(min(pairs, 4)) for theirs in (0, 1, pairs - mine)]
    values = [paired_p_value(*one, pairs, difference) for one in tables]
    assert max(values) <= 1.0
    assert max(values) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("discordant", "expected"),
    [
        ((10, 2), 79 / 4096),  # P(X >= 10), X ~ B(12, 1/2): (66 + 12 + 1) / 2^12
        ((5, 0), 1 / 32),
        ((0, 5), 1.0),
        ((3, 3), 42 / 64),  # (20 + 15 + 6 + 1) / 2^6
        ((0, 0), 1.0),  # no discordant pair: nothing speaks for either
    ],
)
def test_mcnemar_is_the_exact_binomial_tail(discordant: tuple[int, int], expected: float) -> None:
    assert mcnemar(*discordant) == pytest.approx(expected)
    advantage = compared(*table(5, *discordant, 3))
    assert advantage.p_value == pytest.approx(expected)
    assert advantage.test == "mcnemar_exact"
    assert -1 <= advantage.low <= advantage.difference <= advantage.high <= 1


@pytest.mark.parametrize("test", ["proportion", "mean", "ratio"])
@pytest.mark.parametrize("rows", [1, 2, 3])
def test_three_rows_never_tell_anything(test: str, rows: int) -> None:
    weights = np.ones(rows) if test == "ratio" else None
    better, worse = Scores(np.ones(rows), weights), Scores(np.zeros(rows), weights)
    advantage = compared(better, worse, test=test)
    assert advantage.p_value == 0.5**rows
    assert advantage.low <= 0


def test_a_cluster_is_one_observation() -> None:
    better, worse = table(0, 15, 0, 0)
    assert compared(better, worse).p_value == 0.5**15
    assert compared(better, worse, [0, 1, 2] * 5).p_value == pytest.approx(0.5**3)
    assert compared(better, worse, [0, 1, 2] * 5).clusters == 3


def test_flips_are_enumerated_where_they_are_few() -> None:
    flips = flip(np.array([0.4, 0.1, -0.2]), np.ones(3), seed=0)
    # all subsets but the empty one: .4 .1 -.2 | .25 .1 -.05 | .1
    assert flips.means == pytest.approx([-0.2, -0.05, 0.1, 0.1, 0.1, 0.25, 0.4])
    assert flips.p_value(0.0) == 3 / 8
    assert flips.low(0.25) == pytest.approx(-0.05)
    assert flips.high(0.25) == pytest.approx(0.25)
    assert flips.low(0.05) == -math.inf


def test_flips_repeat_with_their_seed_and_agree_with_scipy() -> None:
    from scipy.stats import permutation_test

    difference = np.random.default_rng(4).normal(0.03, 0.2, 60)
    flips = flip(difference, np.ones(60), seed=1)
    assert len(flips.means) == DRAWS
    assert np.array_equal(flips.means, flip(difference, np.ones(60), seed=1).means)
    asked = permutation_test(
        (difference,), np.mean, permutation_type="samples", n_resamples=20_000, alternative="greater",
        rng=np.random.default_rng(1),
    )  # fmt: skip
    assert flips.p_value(0.0) == pytest.approx(asked.pvalue, abs=0.012)


def test_interval_ends_where_the_flips_begin_to_reject() -> None:
    difference = np.random.default_rng(9).normal(0.1, 0.3, 40)
    flips = flip(difference, np.ones(40), seed=1)
    low = flips.low(0.05)
    assert flips.p_value(low - 1e-6) <= 0.05 < flips.p_value(low)


def test_exact_interval_of_pairs_that_all_agree_is_the_binomial_one() -> None:
    # (1 - d)^n = alpha where no pair was lost
    assert paired_low(0, 0, 29, alpha=0.05) == pytest.approx(0.05 ** (1 / 29) - 1, abs=1e-3)


@pytest.mark.parametrize("clusters", [None, [n // 2 for n in range(40)]])
def test_interval_covers_the_truth_as_often_as_it_says(clusters: list[int] | None) -> None:
    generator = np.random.default_rng(5)
    tables = generator.multinomial(40, [0.5, 0.2, 0.1, 0.2], size=300)
    found = []
    for one in tables:
        candidate, other = table(*(int(n) for n in one))
        order = generator.permutation(40)
        mixed = Scores(candidate.values[order]), Scores(other.values[order])
        found.append(compared(*mixed, clusters))
    assert np.mean([one.low <= 0.1 for one in found]) >= 0.93
    assert np.mean([one.high >= 0.1 for one in found]) >= 0.93


def test_interval_of_unanimity_is_not_a_point() -> None:
    better, worse = table(0, 20, 0, 0)
    assert compared(better, worse).low < 0.9
    assert compared(better, worse, [n // 2 for n in range(20)]).low < 0.8
    assert compared(better, worse, test="mean").low < 0.9


def test_equal_models_are_not_called_equal_by_a_few_clusters() -> None:
    same = Scores(np.ones(20))
    assert compared(same, same, [n // 4 for n in range(20)]).low < -0.3


def test_less_is_the_advantage_where_the_metric_says_so() -> None:
    tokens = np.random.default_rng(2).integers(10, 40, 50).astype(float)
    other = Scores(tokens * np.random.default_rng(3).normal(2.0, 0.2, 50), tokens)
    better = Scores(other.values * 0.5, tokens)
    advantage = compared(better, other, test="ratio", lower_is_better=True)
    assert advantage.difference == pytest.approx(perplexity(other.mean) - perplexity(better.mean))
    assert 0 < advantage.low < advantage.difference < advantage.high
    assert advantage.p_value < 0.001
    assert compared(other, better, test="ratio", lower_is_better=True).p_value > 0.99


def test_ratio_weighs_tokens_not_examples() -> None:
    # 10 tokens at 1 nat and 30 at 2: 70 / 40
    assert Scores(np.array([10.0, 60.0]), np.array([10.0, 30.0])).mean == pytest.approx(1.75)


def test_perplexity_stays_a_number() -> None:
    assert perplexity(1e9) == pytest.approx(math.exp(MAX_MEAN_NLL))
    alone = Scores(np.array([5.0]), np.array([2.0]))
    found = figure_interval(alone, np.array([0]), test="ratio", alpha=0.05)
    assert (found.low, math.isfinite(found.high)) == (1.0, True)


def test_figure_of_independent_rows_has_the_binomial_interval() -> None:
    hits = Scores(np.array([1.0] * 68))
    found = figure_interval(hits, np.arange(68), test="proportion", alpha=0.05)
    assert found.low == pytest.approx(0.05 ** (1 / 68))
    assert clopper_pearson(0, 10, alpha=0.05) == pytest.approx((0.0, 1 - 0.05**0.1))


def test_figure_of_clusters_is_as_uncertain_as_their_number() -> None:
    hits = Scores(np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0], 10))
    alone = figure_interval(hits, np.arange(80), test="proportion", alpha=0.05)
    grouped = figure_interval(hits, np.arange(80) // 10, test="proportion", alpha=0.05)
    assert grouped.low < alone.low - 0.1
    unanimous = figure_interval(Scores(np.ones(80)), np.arange(80) // 10, test="proportion", alpha=0.05)
    assert unanimous.low == pytest.approx(0.05 ** (1 / 8))


SHAPES = [[1] * 25 + [2] * 6 + [5] * 5, [30] + [1] * 32, [9] * 7, [20, 20, 22], [62], [1] * 62]


@pytest.mark.parametrize("sizes", SHAPES, ids=str)
@pytest.mark.parametrize("others", ["none", "equal", "alike in a customer", "independent"])
@pytest.mark.parametrize("alpha", [0.05, 0.005])
def test_no_figure_has_a_better_end_than_the_perfect_one(sizes: list[int], others: str, alpha: float) -> None:
    clusters = np.repeat(np.arange(len(sizes)), sizes)
    rows, rng = len(clusters), np.random.default_rng(62)
    base = {
        "none": [],
        "equal": [np.zeros(rows)],
        "alike in a customer": [(clusters % 2).astype(np.float64)],
        "independent": [(rng.random(rows) < 0.35).astype(np.float64)],
    }[others]

    def ends(values: Any) -> tuple[float, float]:
        found = figure_interval(Scores(values), clusters, test="proportion", alpha=alpha, others=base)
        return found.low, found.high

    lowest, highest = ends(np.ones(rows))[0], ends(np.zeros(rows))[1]
    for wrong in (1, 2, 5, rows // 2):
        for where in (np.arange(wrong), rows - 1 - np.arange(wrong), rng.choice(rows, wrong, replace=False)):
            values = np.ones(rows)
            values[where] = 0.0
            assert ends(values)[0] <= lowest
            assert ends(1 - values)[1] >= highest


def test_the_largest_customer_does_not_hide_the_others() -> None:
    clusters = np.repeat(np.arange(141), [60] + [1] * 140)
    values = np.random.default_rng(1).permuted(np.repeat([1.0, 0.0], [150, 50]))
    kish = 200**2 / (60**2 + 140)
    assert effective_rows(values, clusters, alpha=0.05) > 1.5 * kish
    assert effective_rows(values, np.arange(200), alpha=0.05) == 200
    assert effective_rows((clusters == 0).astype(float), clusters, alpha=0.05) <= kish
    assert effective_rows(np.ones(200), clusters, alpha=0.05) == pytest.approx(kish)
    alone = np.zeros(200, dtype=np.int64)
    assert effective_rows(values, alone, alpha=0.05) == 1


def test_metric_without_a_highest_value_is_bounded_by_its_spread() -> None:
    lengths = Scores(np.random.default_rng(1).normal(200, 40, 50))
    found = figure_interval(lengths, np.arange(50), test="mean", alpha=0.05, highest=math.inf)
    error = lengths.values.std(ddof=1) / math.sqrt(50)
    assert found.high == pytest.approx(lengths.mean + 1.6766 * error, rel=1e-4)  # t(49)
    shorter = Scores(lengths.values - 20)
    assert compared(shorter, lengths, test="mean", lower_is_better=True, span=None).low > 0


def test_rows_needed_is_the_sum_of_both_quantiles() -> None:
    assert rows_needed(spread=math.sqrt(0.2), distance=0.05, alpha=0.05) == 495


@pytest.mark.parametrize(("left", "right"), [(0, 0), (2, 3)])
def test_unpaired_rows_are_refused(left: int, right: int) -> None:
    with pytest.raises(ValueError, match="equal, non-empty"):
        compare(Scores(np.zeros(left)), Scores(np.zeros(right)), np.arange(left), test="mean", alpha=0.05)
