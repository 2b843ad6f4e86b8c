"""Is one share larger than another? Answers that hold at every moment, however often somebody looks.

A comparison is a row of differences, candidate minus champion, each between -1 and 1: of one pair of answers,
or of the means of two small groups that were seen side by side (see ``figures``). Against the hypothesis
"their mean is at least b" a gambler bets on smaller ones: with the stake s, the difference d turns one coin
into ``1 + s (b - d) / (1 - b)`` coins, which is never less than none. If the hypothesis is true, the wealth
is a non-negative supermartingale: by Ville's inequality it reaches 1/alpha, ever, with probability alpha at
most. That also holds where the shares change with time, or where one difference depends on those before it,
as long as each is expected to be at least b.

Nobody knows the best stake beforehand, so the wealth is the mean of several gamblers with fixed stakes
("diversified Kelly": Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting",
JRSS B 86(1), 2024, sections 3 to 5). Fixed stakes make the wealth depend on how often each difference was
seen, not on the order: a comparison is a small table. The values b that were not refuted are a confidence
sequence (Howard, Ramdas, McAuliffe and Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence
sequences", Annals of Statistics 49(2), 2021).

What that takes in requests: ``make bench NAME=rollout``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = dict[str, int]
"""How often each difference was seen; a difference is written with ``DIGITS`` decimals."""

STAKES = (0.1, 0.25, 0.5, 0.75, 0.95)
"""Of what can be lost at most."""
DIGITS = 4
NARROW = 1e-4
"""How exactly an end of an interval is found."""


def key(difference: float) -> str:
    return f"{difference:.{DIGITS}f}"


def mean(counts: Counts) -> float:
    """Return the mean difference; 0 where none was seen."""
    seen = sum(counts.values())
    return sum(float(value) * times for value, times in counts.items()) / seen if seen else 0.0


def evidence_below(values: Floats, times: Any, bound: float) -> Any:
    """Return the logarithm of the wealth against "the mean is at least ``bound``".

    ``values`` (k) are differences; ``times`` (…, k) says how often each was seen. The result has the shape
    of ``times`` without its last axis. ``bound`` lies in [-1, 1).
    """
    gains = (bound - values) / (1 - bound)
    wealth = times @ np.log1p(np.outer(gains, STAKES))
    return np.logaddexp.reduce(wealth, axis=-1) - math.log(len(STAKES))


def evidence_above(values: Floats, times: Any, bound: float) -> Any:
    """Return the logarithm of the wealth against "the mean is at most ``bound``", which lies in (-1, 1]."""
    return evidence_below(-values, times, -bound)


def is_below(counts: Counts, bound: float, alpha: float) -> bool:
    """Tell whether the mean is shown to be below ``bound``; wrongly, ever, with probability ``alpha``."""
    return bound < 1 and bool(counts) and evidence_below(*_table(counts), bound) >= -math.log(alpha)


def is_above(counts: Counts, bound: float, alpha: float) -> bool:
    """Tell whether the mean is shown to be above ``bound``; wrongly, ever, with probability ``alpha``."""
    return is_below(_mirrored(counts), -bound, alpha)


def upper(counts: Counts, alpha: float) -> float:
    """Return the upper end of the one-sided confidence sequence of the mean, now."""
    if not counts:
        return 1.0
    values, times = _table(counts)
    low, high = mean(counts), 1 - NARROW  # the mean of what was seen is never refuted
    if evidence_below(values, times, high) < -math.log(alpha):
        return 1.0
    while high - low > NARROW:
        middle = (low + high) / 2
        refuted = evidence_below(values, times, middle) >= -math.log(alpha)
        low, high = (low, middle) if refuted else (middle, high)
    return high


def lower(counts: Counts, alpha: float) -> float:
    """Return the lower end of the one-sided confidence sequence of the mean, now."""
    return -upper(_mirrored(counts), alpha)


def shares(hits: int, of: int) -> Counts:
    """Return the table of ``of`` observations that are 1 ``hits`` times and else 0."""
    return {value: times for value, times in ((key(1), hits), (key(0), of - hits)) if times}


def _table(counts: Counts) -> tuple[Floats, Floats]:
    return np.array([float(value) for value in counts]), np.array(list(counts.values()), dtype=float)


def _mirrored(counts: Counts) -> Counts:
    return {key(-float(value)): times for value, times in counts.items()}
