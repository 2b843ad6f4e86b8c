"""How many independent rows tell as much as the rows of clusters, such as customers.

Clusters may be of any size: rows of a large cluster count less, rows of small clusters in full. Sign flips of
cluster sums and a sandwich variance (CR2) fail here, because differences of hits are lumps. If four to eight
customers answer alike, both see no variance, and pass a worse candidate in two cases of five.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
DOUBT = 0.05
"""The chance that the rows of a cluster are more alike than ``effective_rows`` assumes."""
LEAST_FREEDOM = 3.0
"""The fewest degrees of freedom of Student's t. With fewer, one large customer could never be decided."""
TINY = 1e-12
"""A variance up to this is rounding."""


def effective_rows(values: Floats, clusters: Ints, *, alpha: float, others: Sequence[Floats] = ()) -> float:
    """Return how many independent rows tell as much about the mean of ``values``: shape (rows,).

    That is the number of rows over the design effect of clusters (Kish, "Survey Sampling", 1965), with the
    intraclass correlation from the analysis of variance, at its upper bound of confidence 1 - ``DOUBT`` (F
    test; Searle, "Linear Models", 1971). The number falls further by the squared ratio of the quantiles of
    the normal and of Student's t at ``alpha``, as in Korn and Graubard ("Confidence intervals for proportions
    with small expected number of positive counts estimated from survey data", Survey Methodology 24, 1998).
    The degrees of freedom are those of the design effect (Satterthwaite, 1946). If all ``values`` are equal,
    ``others`` say how alike the rows of a cluster are. If these are equal too, a cluster counts as one row.
    """
    from scipy.special import ndtri, stdtrit

    _, numbers, sizes = np.unique(clusters, return_inverse=True, return_counts=True)
    rows, count = len(values), len(sizes)
    if count == rows:
        return float(rows)
    typical = float((sizes**2).sum()) / rows  # the size of the cluster of a random row
    smaller = (rows - typical) / max(1, count - 1)
    alike = _correlation(values, numbers, sizes, smaller)
    if alike is None:
        found = [_correlation(one, numbers, sizes, smaller) for one in others]
        alike = max((one for one in found if one is not None), default=None)
    if alike is None:
        return rows / typical
    effect = 1 + (typical - 1) * alike
    doubt = (typical - 1) * (1 - alike) * (1 + (smaller - 1) * alike) / (smaller * effect)
    freedom = (count - 1) * (rows - count) / (rows - 1) / max(TINY, doubt**2)
    freedom = min(max(freedom, LEAST_FREEDOM), max(count - 1.0, LEAST_FREEDOM))
    level = 1 - min(alpha, 0.4)  # the ratio of the quantiles has a limit at .5, where both are 0
    return rows / effect * float(ndtri(level) / stdtrit(freedom, level)) ** 2


def _correlation(values: Floats, numbers: Ints, sizes: Ints, smaller: float) -> float | None:
    """Return the upper bound of the intraclass correlation; None: the values are equal, or of one cluster.
    ``smaller`` is the size of the clusters for which the mean squares hold."""
    from scipy.special import fdtri

    rows, count = len(values), len(sizes)
    means = np.bincount(numbers, weights=values) / sizes
    within = float(((values - means[numbers]) ** 2).sum()) / (rows - count)
    between = float((sizes * (means - values.mean()) ** 2).sum()) / max(1, count - 1)
    if count < 2 or within + between <= TINY:
        return None
    between /= float(fdtri(count - 1, rows - count, DOUBT))
    found = (between - within) / (between + (smaller - 1) * within)
    return min(1.0, max(0.0, found))
