from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from tunewheel_eval.significance import (
    MAX_MEAN_NLL,
    bootstrap_mean,
    bootstrap_perplexity,
    mcnemar,
    perplexity,
)


def pairs(both: int, only_candidate: int, only_other: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    candidate = [True] * (both + only_candidate) + [False] * (only_other + neither)
    other = [True] * both + [False] * only_candidate + [True] * only_other + [False] * neither
    return np.array(candidate), np.array(other)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ((5, 10, 2, 3), 79 / 4096),  # P(X >= 10), X ~ B(12, 1/2): (66 + 12 + 1) / 2^12
        ((0, 5, 0, 0), 1 / 32),
        ((0, 0, 5, 0), 1.0),
        ((9, 3, 3, 1), 42 / 64),  # P(X >= 3), X ~ B(6, 1/2): (20 + 15 + 6 + 1) / 2^6
        ((9, 0, 0, 1), 1.0),  # no discordant pair: nothing speaks for either
    ],
)
def test_mcnemar_is_the_exact_binomial_tail(table: tuple[int, int, int, int], expected: float) -> None:
    advantage = mcnemar(*pairs(*table))
    assert advantage.p_value == pytest.approx(expected)
    size = sum(table)
    assert advantage.difference == pytest.approx((table[1] - table[2]) / size)
    assert -1 <= advantage.ci_low <= advantage.difference <= advantage.ci_high <= 1


def test_mcnemar_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(5)
    tables = generator.multinomial(40, [0.5, 0.2, 0.1, 0.2], size=1500)
    intervals = [mcnemar(*pairs(*(int(n) for n in table))) for table in tables]
    covered = np.mean([one.ci_low <= 0.1 <= one.ci_high for one in intervals])
    assert 0.935 <= covered <= 0.975


def test_interval_of_unanimity_is_not_a_point() -> None:
    advantage = mcnemar(*pairs(0, 20, 0, 0))
    assert advantage.difference == 1.0
    assert advantage.ci_low < 0.9


def test_bootstrap_agrees_with_the_normal_theory_of_large_samples() -> None:
    generator = np.random.default_rng(1)
    other = generator.normal(0.5, 0.2, 400)
    candidate = other + generator.normal(0.03, 0.3, 400)
    differences = candidate - other
    error = differences.std(ddof=1) / math.sqrt(400)
    advantage = bootstrap_mean(candidate, other, seed=3)
    assert advantage.difference == pytest.approx(differences.mean())
    assert advantage.p_value == pytest.approx(NormalDist().cdf(-differences.mean() / error), abs=0.006)
    assert advantage.ci_low == pytest.approx(differences.mean() - 1.96 * error, abs=0.1 * error)
    assert advantage.ci_high == pytest.approx(differences.mean() + 1.96 * error, abs=0.1 * error)


def test_bootstrap_repeats_with_its_seed() -> None:
    candidate, other = np.linspace(0, 1, 30), np.linspace(0, 0.9, 30) ** 2
    assert bootstrap_mean(candidate, other, seed=1) == bootstrap_mean(candidate, other, seed=1)
    assert bootstrap_mean(candidate, other, seed=1) != bootstrap_mean(candidate, other, seed=2)


def test_no_advantage_is_never_significant() -> None:
    same = np.array([0.2, 0.4, 0.9])
    assert bootstrap_mean(same, same, seed=0).p_value == 1.0
    assert bootstrap_mean(same, same + 0.1, seed=0).p_value == 1.0


def test_lower_perplexity_is_the_advantage() -> None:
    generator = np.random.default_rng(2)
    tokens = generator.integers(10, 40, 50).astype(float)
    other = tokens * generator.normal(2.0, 0.2, 50)
    better = bootstrap_perplexity(other * 0.5, tokens, other, tokens, seed=0)
    assert better.difference < 0
    assert better.p_value < 0.001
    assert better.ci_high < 0
    assert bootstrap_perplexity(other, tokens, other * 0.5, tokens, seed=0).p_value == 1.0


def test_perplexity_weighs_tokens_not_examples() -> None:
    # 10 tokens at 1 nat and 30 at 2: exp(70 / 40)
    assert perplexity(np.array(70.0), np.array(40.0)) == pytest.approx(math.exp(1.75))


def test_perplexity_stays_a_number() -> None:
    assert float(perplexity(np.array(1e9), np.array(1.0))) == pytest.approx(math.exp(MAX_MEAN_NLL))


@pytest.mark.parametrize(("left", "right"), [(0, 0), (2, 3)])
def test_unpaired_rows_are_refused(left: int, right: int) -> None:
    with pytest.raises(ValueError, match="equal, non-empty"):
        mcnemar(np.zeros(left, dtype=bool), np.zeros(right, dtype=bool))
