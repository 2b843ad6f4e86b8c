"""Exact tests and intervals of proportions: McNemar, Tango, Clopper and Pearson.

Sources: McNemar, "Note on the sampling error of the difference between correlated proportions" (Psychometrika
12, 1947), exact form as a binomial test on the discordant pairs; Tango, "Equivalence test and confidence
interval for the difference in proportions for the paired-sample design" (Statistics in Medicine 17, 1998);
Tang, Tang and Chan, "Confidence intervals and sample size for the difference between paired proportions via
exact unconditional tests" (Statistics in Medicine 24, 2005), since the score alone passes a few equal models
too many where rows are few; Clopper and Pearson, "The use of confidence or fiducial limits illustrated in the
case of the binomial" (Biometrika 26, 1934).
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
EXACT_UP_TO = 300
"""From so many pairs on the normal approximation of the score is used. Its error rate is 5.1 % instead of 5
%."""
_NUISANCE = 32
"""How many values of the discordance are tried to find the worst one."""
_STEPS = 17
_ROUNDING = 1e-9


def mcnemar(only_candidate: int, only_other: int) -> float:
    """Return the one-sided p-value: the probability of at least so many pairs that only the candidate gets
    right, if each discordant pair is a fair coin."""
    from scipy.special import bdtrc  # scipy.stats takes a second to import

    discordant = only_candidate + only_other
    return float(bdtrc(only_candidate - 1, discordant, 0.5)) if discordant else 1.0


def clopper_pearson(hits: float, size: float, *, alpha: float) -> tuple[float, float]:
    """Return the interval of a proportion, each end at ``alpha``; both arguments may be fractions."""
    from scipy.special import betaincinv

    low = float(betaincinv(hits, size - hits + 1, alpha)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, size - hits, 1 - alpha)) if hits < size else 1.0
    return low, high


@lru_cache(maxsize=4_096)
def paired_low(only_candidate: float, only_other: float, pairs: float, *, alpha: float) -> float:
    """Return the smallest difference of two paired proportions that is not rejected at ``alpha``.

    ``only_candidate`` and ``only_other`` count the discordant pairs. All three may be fractions where the
    pairs are clustered; the test of a fractional number of pairs is not exact. The other end is
    ``-paired_low(only_other, only_candidate, ...)``.
    """
    if only_candidate == only_other == 0:
        return alpha ** (1 / pairs) - 1  # exact: no pair is lost with probability (1 + difference)^pairs
    if not _exact(pairs):
        return _score_low(np.array(only_candidate), np.array(only_other), pairs, alpha)
    below, above = -1.0, (only_candidate - only_other) / pairs
    for _ in range(_STEPS):
        middle = (below + above) / 2
        if paired_p_value(only_candidate, only_other, pairs, middle) <= alpha:
            below = middle
        else:
            above = middle
    return below


def paired_p_value(only_candidate: float, only_other: float, pairs: float, difference: float) -> float:
    """Return the probability of at least this score if the true difference is ``difference``."""
    from scipy.special import bdtr, ndtr

    observed = float(_score(np.array(only_candidate), np.array(only_other), pairs, difference))
    if not _exact(pairs):
        return float(ndtr(-observed))
    pairs = int(pairs)
    # The score falls with the number of pairs that only the other gets right. Find the largest number that is
    # still as extreme.
    candidate = np.arange(pairs + 1, dtype=np.float64)
    most = _most(candidate, pairs, difference, observed)
    other = _nuisance(difference)[:, None]
    mine = other + difference
    log_mass = _log_binomial(candidate, pairs, mine)
    conditional = np.clip(other / np.maximum(1 - mine, _ROUNDING), 0, 1)
    left = np.arange(pairs, -1, -1)
    tail = np.where(most < 0, 0.0, bdtr(np.maximum(most, 0), left, conditional))
    # Of a table that says nothing the masses add up to 1, give or take their rounding.
    return min(1.0, float(np.max(np.sum(np.exp(log_mass) * tail, axis=1))))


@lru_cache(maxsize=64)
def paired_rejected(pairs: int, difference: float, *, alpha: float) -> NDArray[np.bool_]:
    """Return for every table whether ``paired_p_value`` is at most ``alpha``. Shape (pairs + 1, pairs + 1):
    the pairs that only the candidate gets right, and those that only the other does. All tables at once take
    as long as a hundred single ones."""
    from scipy.special import gammaln, xlogy

    mine, theirs = np.indices((pairs + 1, pairs + 1), dtype=np.float64)
    possible = mine + theirs <= pairs
    mine, theirs = mine[possible], theirs[possible]
    score = np.round(_score(mine, theirs, pairs, difference), 9)
    order = np.argsort(-score, kind="stable")
    last = np.searchsorted(-score[order], -score[order], side="right") - 1  # ties are as extreme
    mine, theirs = mine[order], theirs[order]
    rest = pairs - mine - theirs
    ways = math.lgamma(pairs + 1) - gammaln(mine + 1) - gammaln(theirs + 1) - gammaln(rest + 1)
    most = np.zeros(len(mine))
    for other in _nuisance(difference):
        share = np.clip([other + difference, other, 1 - difference - 2 * other], 0, 1)
        log_mass = ways + xlogy(mine, share[0]) + xlogy(theirs, share[1]) + xlogy(rest, share[2])
        most = np.maximum(most, np.cumsum(np.exp(log_mass)))
    rejected = np.zeros((pairs + 1, pairs + 1), dtype=np.bool_)
    rejected[mine.astype(int), theirs.astype(int)] = most[last] <= alpha
    return rejected


def _exact(pairs: float) -> bool:
    return pairs <= EXACT_UP_TO and pairs == int(pairs)


def _score_low(only_candidate: Floats, only_other: Floats, pairs: float, alpha: float) -> float:
    """Return the smallest difference whose score is below the normal quantile."""
    from scipy.special import ndtri

    below, above, quantile = -1.0, float(only_candidate - only_other) / pairs, float(ndtri(1 - alpha))
    for _ in range(3):
        tried = np.linspace(below, above, 65)
        rejected = _score(only_candidate, only_other, pairs, tried) >= quantile
        last = max(0, int(rejected.sum()) - 1)  # the score falls with the difference
        below, above = float(tried[last]), float(tried[min(64, last + 1)])
    return below


def _nuisance(difference: float) -> Floats:
    """Return values to try for the other's share of discordant pairs, from 0 to the most that ``difference``
    allows.
    """
    lowest, highest = max(0.0, -difference), (1 - difference) / 2
    return lowest + (highest - lowest) * np.linspace(0, 1, _NUISANCE) ** 2


def _most(candidate: Floats, pairs: int, difference: float, observed: float) -> Floats:
    """Return, for every count of the candidate, the largest count of the other for which the score is at
    least ``observed``; -1 if there is none."""
    low, high = np.full(pairs + 1, -1.0), pairs - candidate
    while np.any(low < high):
        middle = np.ceil((low + high) / 2)
        extreme = _score(candidate, middle, pairs, difference) >= observed - _ROUNDING
        low, high = np.where(extreme, middle, low), np.where(extreme, high, middle - 1)
    return low


def _score(only_candidate: Floats, only_other: Floats, pairs: float, difference: float | Floats) -> Floats:
    """Tango's score: how many standard deviations the observed difference lies above ``difference``."""
    b = -only_candidate - only_other + (2 * pairs - only_candidate + only_other) * difference
    c = -only_other * difference * (1 - difference)
    other = (np.sqrt(np.maximum(b * b - 8 * pairs * c, 0)) - b) / (4 * pairs)
    variance = pairs * (2 * other + difference * (1 - difference))
    distance = only_candidate - only_other - pairs * difference
    spread = np.sqrt(np.maximum(variance, 1e-300))
    return np.where(np.abs(distance) < _ROUNDING, 0.0, distance / spread)


def _log_binomial(counts: Floats, size: int, share: Floats) -> Floats:
    from scipy.special import gammaln, xlog1py, xlogy

    ways = math.lgamma(size + 1) - gammaln(counts + 1) - gammaln(size - counts + 1)
    share = np.clip(share, 0, 1)
    return ways + xlogy(counts, share) + xlog1py(size - counts, -share)
