"""Tests whether an advantage is more than luck, and bounds its size. Tests are paired and one-sided, and the
rows of a cluster count as one observation.

``compare`` tests candidate against other; ``figure_interval`` bounds one figure. Each end of an interval
holds with probability 1 - alpha.

Proportions have Tango's and Clopper and Pearson's intervals (``proportions.py``), exact if every row is its
own cluster. Otherwise they are computed for ``effective_rows`` (``design_effect.py``), the number of
independent rows that tell as much.
Means are compared by sign flips of cluster sums (``sign_flips.py``). Sign flips assume differences that are
symmetric about their mean. If half of the clusters or more have the same difference, this does not hold, and
rare clusters matter. Then the bound must also hold for Tango's interval of the gains and losses.

Ratios, such as perplexity, are compared by each cluster's contribution to the logarithm of the ratio. With
equal weights, flipping its sign exchanges the two models. The bound is converted to the metric's unit at the
other's observed figure.

One figure without an upper limit, or a ratio, has Student's t on the clusters' (linearised) sums.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tunewheel_verdicts.design_effect import TINY, effective_rows
from tunewheel_verdicts.proportions import clopper_pearson, mcnemar, paired_low, paired_p_value
from tunewheel_verdicts.sign_flips import DRAWS, Floats, flip

Test = Literal["proportion", "mean", "ratio"]
Clusters = NDArray[np.int64]
Bools = NDArray[np.bool_]
MAX_MEAN_NLL = 100.0
"""Perplexity is cut off at so many nats per token, so that JSON can hold it."""
UNBOUNDED = 1e9
"""Stands for infinity, which JSON cannot hold."""
POWER_Z = 0.8416212335729143
"""The normal quantile for a power of .8."""
MOST_ROWS = 1_000_000_000
"""The upper limit of ``rows_needed``: more rows than anybody has."""


@dataclass(frozen=True, slots=True)
class Scores:
    """One contestant on one metric, row by row: shape (rows,).

    ``values`` are hits (0 or 1), or scores from 0 to 1, or with ``weights`` the numerators of a ratio, such
    as nats with tokens as weights.
    """

    values: Floats
    weights: Floats | None = None

    @property
    def scored(self) -> Bools:
        """Return for each row whether it has a score; the others are NaN."""
        return ~np.isnan(self.values)

    def only(self, rows: Bools) -> Scores:
        """Return the scores of ``rows``."""
        return Scores(self.values[rows], None if self.weights is None else self.weights[rows])

    @property
    def total_weight(self) -> float:
        return float(len(self.values)) if self.weights is None else float(self.weights.sum())

    @property
    def mean(self) -> float:
        return float(self.values.sum()) / self.total_weight

    def figure(self, test: Test) -> float:
        """Return the figure of these rows, for a metric that is compared by ``test``."""
        return perplexity(self.mean) if test == "ratio" else self.mean


@dataclass(frozen=True, slots=True)
class Advantage:
    """How much better the candidate is, in the metric's unit. Larger is always better for the candidate."""

    difference: float
    p_value: float
    """One-sided: the probability of at least this advantage if there is none."""
    low: float
    high: float
    alpha: float
    test: str
    rows: int
    clusters: int
    spread: float
    """The standard deviation of a row's advantage, times the square root of the design effect of clusters."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure of one contestant, in the metric's unit."""

    figure: float
    low: float
    high: float
    alpha: float
    rows: int
    clusters: int
    spread: float


def compare(
    candidate: Scores,
    other: Scores,
    clusters: Clusters,
    *,
    test: Test,
    alpha: float,
    lower_is_better: bool = False,
    span: float | None = 1.0,
    seed: int = 0,
    flips: int = DRAWS,
) -> Advantage:
    """Compare two contestants on the same rows. The rows of a cluster count as one observation.

    ``span`` is the difference between the highest and the lowest possible score of a row; None: it is
    unlimited. Raises ValueError: the arguments have different rows, or no rows.
    """
    _check_pairs(candidate.values, other.values, clusters)
    sign = -1.0 if lower_is_better else 1.0
    if test == "ratio":
        return _compare_ratios(candidate, other, clusters, alpha=alpha, sign=sign, seed=seed, draws=flips)
    scale = span or max(1e-9, float(np.abs(candidate.values - other.values).max()))
    difference = sign * (candidate.values - other.values) / scale
    sums, sizes = _by_cluster(difference, clusters), _by_cluster(np.ones_like(difference), clusters)
    size = effective_rows(difference, clusters, alpha=alpha)
    gained, lost = (float(np.maximum(one, 0).mean()) * size for one in (difference, -difference))
    if test == "proportion" and size == len(difference):
        gained, lost = round(gained), round(lost)
        p_value, name = mcnemar(gained, lost), "mcnemar_exact"
        low, high = _paired(gained, lost, size, alpha)
    elif test == "proportion":
        # n observations never have a p-value below 2^-n
        least, name = 2.0 ** -len(sums), "mcnemar_clustered"
        p_value = max(least, paired_p_value(gained, lost, size, 0.0))
        low, high = _paired(gained, lost, size, alpha) if least <= alpha else (-1.0, 1.0)
    else:
        found, name = flip(sums, sizes, seed=seed, draws=flips), "sign_flip"
        p_value, low, high = found.p_value(0.0), max(-1.0, found.low(alpha)), min(1.0, found.high(alpha))
        if _lumped(sums / sizes):
            paired = _paired(gained, lost, size, alpha)
            low, high = min(low, paired[0]), max(high, paired[1])
    error = float(difference.std()) / size**0.5 if test == "proportion" else _error(sums, sizes)
    return Advantage(
        difference=scale * float(difference.mean()),
        p_value=p_value,
        low=scale * low,
        high=scale * high,
        alpha=alpha,
        test=name,
        rows=len(difference),
        clusters=len(sums),
        spread=scale * error * float(np.sqrt(len(difference))),
    )


def _compare_ratios(
    candidate: Scores, other: Scores, clusters: Clusters, *, alpha: float, sign: float, seed: int, draws: int
) -> Advantage:
    mine, theirs = _shares(candidate), _shares(other)
    weights = (mine[1] + theirs[1]) / 2
    sums = _by_cluster(sign * (mine[0] - theirs[0]), clusters)
    sizes = _by_cluster(weights, clusters)
    flips = flip(sums, sizes, seed=seed, draws=draws)
    reference = perplexity(other.mean)

    def in_unit(log_advantage: float) -> float:
        return sign * (perplexity(np.log(reference) + sign * log_advantage) - reference)

    observed = sign * (perplexity(candidate.mean) - reference)
    return Advantage(
        difference=observed,
        p_value=flips.p_value(0.0),
        low=in_unit(max(-MAX_MEAN_NLL, flips.low(alpha))),
        high=in_unit(min(MAX_MEAN_NLL, flips.high(alpha))),
        alpha=alpha,
        test="sign_flip_log_ratio",
        rows=len(candidate.values),
        clusters=len(sums),
        spread=reference * _error(sums, sizes) * float(np.sqrt(len(candidate.values))),
    )


def figure_interval(
    scores: Scores,
    clusters: Clusters,
    *,
    test: Test,
    alpha: float,
    lowest: float = 0.0,
    highest: float = 1.0,
    others: Sequence[Floats] = (),
) -> Interval:
    """Return the interval of one contestant's figure, for an absolute minimum or maximum.

    A row scores from ``lowest`` to ``highest``; ``highest`` may be infinite. ``others``: the values of other
    contestants on these rows. They say how alike a cluster's rows are where all values are equal.
    """
    _check_pairs(scores.values, scores.values, clusters)
    rows, span = len(scores.values), highest - lowest
    if test == "ratio":
        assert scores.weights is not None
        figure, low, high, error = _student(scores.values, scores.weights, clusters, alpha)
        spread = perplexity(figure) * error * np.sqrt(rows)
        ends = perplexity(figure), perplexity(max(0.0, low)), perplexity(high)
    elif not np.isfinite(span):
        figure, low, high, error = _student(scores.values, np.ones(rows), clusters, alpha)
        ends, spread = (figure, max(lowest, low), high), error * np.sqrt(rows)
    else:
        scaled = ((values - lowest) / span for values in (scores.values, *others))
        share, low, high, size = _share(*scaled, clusters=clusters, test=test, alpha=alpha)
        spread = span * np.sqrt(share * (1 - share) * rows / size)
        ends = lowest + span * share, lowest + span * low, lowest + span * high
    return Interval(*ends, alpha, rows, len(np.unique(clusters)), float(spread))


def _share(
    values: Floats, *others: Floats, clusters: Clusters, test: Test, alpha: float
) -> tuple[float, float, float, float]:
    """Return the mean of values from 0 to 1, the ends of its interval, and the effective number of rows."""
    share, variance = float(values.mean()), float(values.var())
    size = effective_rows(values, clusters, alpha=alpha, others=others)
    if test == "proportion":
        low, high = clopper_pearson(share * size, size, alpha=alpha)
        # no figure has a better end than the perfect figure of the same rows
        perfect = effective_rows(np.ones_like(values), clusters, alpha=alpha, others=others)
        end = alpha ** (1 / perfect)
        return share, min(low, end), max(high, 1 - end), size
    # scores between 0 and 1 vary less than hits with the same mean
    size *= min(share * (1 - share) / variance, 50.0) if variance > TINY else 1.0
    return share, *clopper_pearson(share * size, size, alpha=alpha), size


def _student(
    values: Floats, weights: Floats, clusters: Clusters, alpha: float
) -> tuple[float, float, float, float]:
    """Return the ratio of sums, the ends of its interval and its standard error. One cluster gives no
    bounds."""
    from scipy.special import stdtrit

    sums, sizes = _by_cluster(values, clusters), _by_cluster(weights, clusters)
    figure, error = float(sums.sum() / sizes.sum()), _error(sums, sizes)
    reach = float(stdtrit(len(sums) - 1, 1 - alpha)) * error if len(sums) > 1 else UNBOUNDED
    return figure, figure - reach, figure + reach, error


def rows_needed(*, spread: float, distance: float, alpha: float) -> int:
    """Return how many rows detect an advantage of ``distance`` with power .8; at most ``MOST_ROWS``."""
    from scipy.special import ndtri

    root = (float(ndtri(1 - alpha)) + POWER_Z) * spread
    return MOST_ROWS if root >= distance * MOST_ROWS**0.5 else ceil((root / distance) ** 2)


def perplexity(mean_nll: float) -> float:
    """Return exp of the nats per token, cut off at exp(``MAX_MEAN_NLL``)."""
    return float(np.exp(min(mean_nll, MAX_MEAN_NLL)))


def _paired(gained: float, lost: float, pairs: float, alpha: float) -> tuple[float, float]:
    return (paired_low(gained, lost, pairs, alpha=alpha), -paired_low(lost, gained, pairs, alpha=alpha))


def _error(sums: Floats, sizes: Floats) -> float:
    """Return the standard error of the ratio of sums, linearised over clusters."""
    count = len(sums)
    if count < 2:
        return 0.0
    residuals = sums - sizes * (sums.sum() / sizes.sum())
    return float(np.sqrt(count / (count - 1) * (residuals**2).sum()) / sizes.sum())


def _lumped(means: Floats) -> bool:
    """Return whether half of the clusters or more have the same difference."""
    _, counts = np.unique(np.round(means, 9), return_counts=True)
    return bool(2 * counts.max() >= len(means))


def _shares(scores: Scores) -> tuple[Floats, Floats]:
    assert scores.weights is not None
    return scores.values / scores.total_weight, scores.weights / scores.total_weight


def _by_cluster(values: Floats, clusters: Clusters) -> Floats:
    _, numbers = np.unique(clusters, return_inverse=True)
    return np.bincount(numbers, weights=values).astype(np.float64)


def _check_pairs(candidate: Floats, other: Floats, clusters: Clusters) -> None:
    if candidate.shape != other.shape or candidate.shape != clusters.shape or not len(candidate):
        raise ValueError(
            f"pairs need equal, non-empty rows; got {candidate.shape}, {other.shape} and {clusters.shape}"
        )
