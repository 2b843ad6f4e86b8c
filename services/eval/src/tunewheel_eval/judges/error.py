"""Takes the judge's error out of its figure, by the pairs that people reviewed.

Prediction-powered inference (Angelopoulos et al., "Prediction-powered inference", Science 382, 2023; with a
weight, "PPI++", 2023): the mean of the judge's values of all rows, times ``LAMBDA``, plus the mean of what
people's values differ from the judge's on the pairs that both compared. Its expectation is that of people's
values whatever the judge's error is, if the reviewed pairs are like the others. Its interval is that of
Student's t with Satterthwaite's degrees of freedom ("An approximate distribution of estimates of variance
components", Biometrics Bulletin 2, 1946).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tunewheel_verdicts.significance import Interval

Floats = npt.NDArray[np.float64]
LAMBDA = 0.6
"""The weight of the judge, as in trials. It is fixed: a fitted one would need values of its own."""
TIE = 0.5
PSEUDO = 0.5
"""The weight of each of two pairs that are added, one with the largest error in each direction. Without them
a few pairs without a rare error would seem to exclude it."""


@dataclass(frozen=True, slots=True)
class Reviewed:
    """One pair that people and the judge compared. Values: 1 the candidate is better, 0 worse, .5 neither."""

    person: float
    judge: float
    weight: float = 1.0
    """How many pairs it stands for, relative to the other pairs: reviews draw some kinds more often."""


def corrected(
    values: Floats,
    differs: npt.NDArray[np.bool_],
    clusters: npt.NDArray[Any],
    reviewed: Sequence[Reviewed],
    *,
    alpha: float,
) -> Interval:
    """Return the candidate's share as people would tell it, with one-sided bounds of level ``alpha`` each.
    The observations of the interval are the reviewed pairs: more of them narrow it.

    Args:
        values: the judge's value of each row, (rows,). Rows that do not differ are ties.
        differs: whether a row's two answers differ, (rows,).
        clusters: the cluster of each row, (rows,).
        reviewed: at least two pairs whose answers differ.
    """
    from scipy.special import stdtrit

    weights = np.array([one.weight for one in reviewed], dtype=np.float64)
    weights *= len(weights) / weights.sum()
    errors = np.array([(one.person - TIE) - LAMBDA * (one.judge - TIE) for one in reviewed])
    error = float(weights @ errors) / len(errors)
    shares = TIE + np.where(differs, LAMBDA * (values - TIE) + error, 0.0)
    figure, share = float(shares.mean()), float(differs.mean())

    widest = TIE * (1 + LAMBDA)
    pseudo = PSEUDO * ((widest - error) ** 2 + (widest + error) ** 2)
    size = len(errors) + 2 * PSEUDO
    effective = size**2 / (float(weights @ weights) + 2 * PSEUDO)
    of_error = (
        share**2
        * (float(weights**2 @ (errors - error) ** 2) + pseudo)
        / size**2
        * effective
        / (effective - 1)
    )

    _, places = np.unique(clusters, return_inverse=True)
    sums = np.bincount(places, weights=shares - figure)
    count = len(sums)
    of_rows = float(sums @ sums) / len(values) ** 2 * count / max(count - 1, 1)
    variance = of_error + of_rows
    if count < 2:  # one customer says nothing about others
        half = 1.0
    elif not share:  # equal answers do not prove equal models: so many of other customers may differ
        half = TIE * (1 - alpha ** (1 / count))
    else:
        freedom = variance**2 / (of_error**2 / (effective - 1) + of_rows**2 / (count - 1))
        half = float(stdtrit(freedom, 1 - alpha)) * variance**0.5
    pairs = len(errors)
    spread = (variance * pairs) ** 0.5
    return Interval(figure, max(0.0, figure - half), min(1.0, figure + half), alpha, pairs, pairs, spread)
