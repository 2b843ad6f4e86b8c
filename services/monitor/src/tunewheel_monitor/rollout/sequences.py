"""Tests whether one share is larger than another. The result holds at any time, however often it is checked.

A comparison is a sequence of differences, candidate minus champion, each between -1 and 1: of one pair of
answers, or of the means of two small groups from the same time (see ``figures``). Against the hypothesis "the
mean is at least b" a gambler bets on smaller differences. With the stake s, the difference d multiplies the
wealth by ``1 + s (b - d) / (1 - b)``, which is never negative. If the hypothesis is true, the wealth is a
non-negative supermartingale: by Ville's inequality the probability that it ever reaches 1/alpha is at most
alpha. That also holds if the shares change with time, or if a difference depends on earlier ones, as long as
each has an expectation of at least b.

The best stake is not known beforehand, so the wealth is the mean over several fixed stakes ("diversified
Kelly": Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86(1),
2024, sections 3 to 5). With fixed stakes the wealth depends only on how often each difference occurred, not
on the order, so a comparison is a small table. The values b that are not rejected form a confidence sequence
(Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences",
Annals of Statistics 49(2), 2021).

``make bench NAME=rollout`` shows how many requests a verdict needs.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = dict[str, int]
"""How often each difference occurred. A difference is written with ``DIGITS`` decimals."""

Stakes = tuple[float, ...]
STAKES: Stakes = (0.1, 0.25, 0.5, 0.75, 0.95)
"""The stakes, as shares of the largest stake that cannot make the wealth negative."""
DIGITS = 4
NARROW = 1e-4
"""The precision of an interval's end."""


def key(difference: float) -> str:
    return f"{difference:.{DIGITS}f}"


def mean(counts: Counts) -> float:
    """Return the mean difference; 0 if there is none."""
    seen = sum(counts.values())
    return sum(float(value) * times for value, times in counts.items()) / seen if seen else 0.0


def evidence_below(values: Floats, times: Any, bound: float, stakes: Stakes = STAKES) -> Any:
    """Return the logarithm of the wealth against "the mean is at least ``bound``".

    ``values`` (k) are differences; ``times`` (…, k) says how often each occurred. The result has the shape of
    ``times`` without its last axis. ``bound`` lies in [-1, 1).
    """
    gains = (bound - values) / (1 - bound)
    wealth = times @ np.log1p(np.outer(gains, stakes))
    return np.logaddexp.reduce(wealth, axis=-1) - math.log(len(stakes))


def is_below(counts: Counts, bound: float, alpha: float, stakes: Stakes = STAKES) -> bool:
    """Return whether the mean is shown to be below ``bound``. The probability that this is ever wrong is
    ``alpha``."""
    return bound < 1 and bool(counts) and evidence_below(*_table(counts), bound, stakes) >= -math.log(alpha)


def is_above(counts: Counts, bound: float, alpha: float, stakes: Stakes = STAKES) -> bool:
    """Return whether the mean is shown to be above ``bound``. The probability that this is ever wrong is
    ``alpha``."""
    return is_below(_mirrored(counts), -bound, alpha, stakes)


def upper(counts: Counts, alpha: float, stakes: Stakes = STAKES) -> float:
    """Return the current upper end of the one-sided confidence sequence of the mean."""
    if not counts:
        return 1.0
    values, times = _table(counts)
    low, high = mean(counts), 1 - NARROW  # the observed mean is never rejected
    if evidence_below(values, times, high, stakes) < -math.log(alpha):
        return 1.0
    while high - low > NARROW:
        middle = (low + high) / 2
        refuted = evidence_below(values, times, middle, stakes) >= -math.log(alpha)
        low, high = (low, middle) if refuted else (middle, high)
    return high


def lower(counts: Counts, alpha: float, stakes: Stakes = STAKES) -> float:
    """Return the current lower end of the one-sided confidence sequence of the mean."""
    return -upper(_mirrored(counts), alpha, stakes)


def shares(hits: int, of: int) -> Counts:
    """Return the table of ``of`` observations, of which ``hits`` are 1 and the others 0."""
    return {value: times for value, times in ((key(1), hits), (key(0), of - hits)) if times}


def _table(counts: Counts) -> tuple[Floats, Floats]:
    return np.array([float(value) for value in counts]), np.array(list(counts.values()), dtype=float)


def _mirrored(counts: Counts) -> Counts:
    return {key(-float(value)): times for value, times in counts.items()}
