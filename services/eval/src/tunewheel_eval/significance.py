"""Is an advantage more than luck? Two paired tests, one-sided in the candidate's favour.

Sources: McNemar, "Note on the sampling error of the difference between correlated proportions"
(Psychometrika 12, 1947), exact form as a binomial test on the discordant pairs; Newcombe, "Improved
confidence intervals for the difference between binomial proportions based on paired data" (Statistics in
Medicine 17, 1998), method 10; Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), §13.3 for
the percentile interval; Berg-Kirkpatrick, Burkett and Klein, "An Empirical Investigation of Statistical
Significance in NLP" (EMNLP 2012), §2 for the paired bootstrap's p-value with the null hypothesis as a shift.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 10_000
CONFIDENCE = 0.95
MAX_MEAN_NLL = 100.0
"""Nats per token from which perplexity is cut off, so that it stays a number that JSON can hold."""

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
_CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class Advantage:
    """Candidate minus other in the metric's unit, with a one-sided p-value and a 95 % interval."""

    difference: float
    p_value: float
    ci_low: float
    ci_high: float


def mcnemar(candidate: Bools, other: Bools) -> Advantage:
    """Compare two contestants' hits, shape (examples,), pair by pair.

    The p-value is the probability of at least so many examples that only the candidate hits, were each
    discordant pair a fair coin. Raises ValueError for empty or unequal input.
    """
    from scipy.special import bdtrc  # scipy.stats, which has the test itself, takes a second to import

    _check_pairs(candidate, other)
    only_candidate = int(np.sum(candidate & ~other))
    only_other = int(np.sum(~candidate & other))
    discordant = only_candidate + only_other
    p_value = 1.0
    if discordant:
        p_value = float(bdtrc(only_candidate - 1, discordant, 0.5))
    low, high = _newcombe(candidate, other)
    return Advantage(float(np.mean(candidate) - np.mean(other)), p_value, low, high)


def bootstrap_mean(candidate: Floats, other: Floats, *, seed: int) -> Advantage:
    """Compare means of a score where larger is better, shape (examples,), by the paired bootstrap."""
    _check_pairs(candidate, other)
    differences = candidate - other
    return _bootstrap(
        lambda counts: counts @ differences / len(differences), len(differences), sign=1, seed=seed
    )


def bootstrap_perplexity(
    candidate_nll: Floats, candidate_tokens: Floats, other_nll: Floats, other_tokens: Floats, *, seed: int
) -> Advantage:
    """Compare perplexities, where smaller is better, by the paired bootstrap over examples.

    Each argument has shape (examples,): summed negative log-likelihood in nats, and the tokens it is over.
    """
    _check_pairs(candidate_nll, other_nll)

    def difference(counts: Floats) -> Floats:
        return perplexity(counts @ candidate_nll, counts @ candidate_tokens) - perplexity(
            counts @ other_nll, counts @ other_tokens
        )

    return _bootstrap(difference, len(candidate_nll), sign=-1, seed=seed)


def perplexity(nll: Floats, tokens: Floats) -> Floats:
    """exp of nats per token, element by element; cut off at exp(``MAX_MEAN_NLL``)."""
    return np.exp(np.minimum(np.asarray(nll) / np.asarray(tokens), MAX_MEAN_NLL))


def _bootstrap(statistic: Callable[[Floats], Floats], size: int, *, sign: int, seed: int) -> Advantage:
    """``statistic`` maps counts of shape (resamples, size) to differences; ``sign`` is their good side."""
    generator = np.random.default_rng(seed)
    observed = float(statistic(np.ones((1, size)))[0])
    chunks = [
        statistic(generator.multinomial(size, np.full(size, 1 / size), size=_CHUNK).astype(np.float64))
        for _ in range(RESAMPLES // _CHUNK)
    ]
    resampled = np.concatenate(chunks)
    advantage = sign * observed
    # Under the null the resampled advantages centre on nothing instead of on what was observed.
    as_large = int(np.sum(sign * resampled - advantage >= advantage - 1e-12))
    p_value = 1.0 if advantage <= 0 else (1 + as_large) / (1 + len(resampled))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail])
    return Advantage(observed, p_value, float(low), float(high))


def _newcombe(candidate: Bools, other: Bools) -> tuple[float, float]:
    size = len(candidate)
    both, neither = int(np.sum(candidate & other)), int(np.sum(~candidate & ~other))
    only_candidate, only_other = int(np.sum(candidate & ~other)), int(np.sum(~candidate & other))
    share, other_share = float(np.mean(candidate)), float(np.mean(other))
    low, high = _wilson(share, size)
    other_low, other_high = _wilson(other_share, size)
    phi = _correlation(both, only_candidate, only_other, neither)
    below, above = share - low, other_high - other_share
    up, down = high - share, other_share - other_low
    difference = share - other_share
    return (
        difference - float(np.sqrt(max(0.0, below**2 - 2 * phi * below * above + above**2))),
        difference + float(np.sqrt(max(0.0, up**2 - 2 * phi * up * down + down**2))),
    )


def _correlation(both: int, only_candidate: int, only_other: int, neither: int) -> float:
    rows = (both + only_candidate) * (only_other + neither)
    columns = (both + only_other) * (only_candidate + neither)
    if rows == 0 or columns == 0:
        return 0.0
    cross = both * neither - only_candidate * only_other
    half = (both + only_candidate + only_other + neither) / 2
    corrected = max(cross - half, 0.0) if cross > 0 else float(cross)
    return corrected / float(np.sqrt(float(rows) * float(columns)))


def _wilson(share: float, size: int) -> tuple[float, float]:
    """Wilson's score interval (JASA 22, 1927)."""
    from scipy.special import ndtri

    z = float(ndtri(1 - (1 - CONFIDENCE) / 2))
    centre = share + z**2 / (2 * size)
    spread = z * float(np.sqrt(share * (1 - share) / size + z**2 / (4 * size**2)))
    scale = 1 + z**2 / size
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _check_pairs(candidate: NDArray[np.generic], other: NDArray[np.generic]) -> None:
    if candidate.shape != other.shape or candidate.ndim != 1 or not len(candidate):
        raise ValueError(f"pairs need equal, non-empty rows; got {candidate.shape} and {other.shape}")
