"""Tests by sign flips whether an advantage is more than luck. The rows of a cluster count as one observation.

If candidate and other are equally good, they can be exchanged within any cluster, which flips the sign of the
cluster's advantage. So the advantages under all choices of signs show how far luck goes (Fisher, "The Design
of Experiments", 1935, §21; for language models: Dror et al., "The Hitchhiker's Guide to Testing Statistical
Significance in NLP", ACL 2018).

The hypothesis of an advantage ``d`` is tested by flipping the differences from ``d``. It is rejected exactly
if ``d`` lies below a quantile of the means over random subsets of clusters (Hartigan's typical values: "Using
subsample values as typical values", JASA 64, 1969). This gives the interval in closed form. The test is exact
for differences that are symmetric about their mean, as for two equal models. For skewed differences there is
no exact test.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ENUMERATED = 14
"""Up to so many clusters all 2^n choices of signs are tried, at most 2^14."""
DRAWS = 20_000
"""The number of random choices of signs for more clusters. At alpha .005, 100 of them lie in the tail."""
_CHUNK = 4_000_000
"""How many signs are computed at once: 32 MB."""
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Flips:
    """The sorted subset means of one comparison, and the share of choices that pick no cluster."""

    means: Floats
    """Shape (choices,). The choice that picks no cluster has no mean and is left out."""

    def p_value(self, advantage: float) -> float:
        """Return the probability of the observed advantage or more, if the true advantage is
        ``advantage``."""
        reached = int(np.searchsorted(self.means, advantage + _ROUNDING, side="right"))
        return (1 + reached) / (1 + len(self.means))

    def low(self, alpha: float) -> float:
        """Return the smallest advantage that is not rejected at ``alpha``; -inf: none is rejected."""
        beyond = int(alpha * (1 + len(self.means)) + _ROUNDING)
        return float(self.means[beyond - 1]) if beyond else -np.inf

    def high(self, alpha: float) -> float:
        """Return the largest advantage that is not rejected from above at ``alpha``; inf: none is
        rejected."""
        beyond = int(alpha * (1 + len(self.means)) + _ROUNDING)
        return float(self.means[-beyond]) if beyond else np.inf


def flip(advantages: Floats, weights: Floats, *, seed: int, draws: int = DRAWS) -> Flips:
    """Return the means of ``advantages`` over subsets of clusters. Both arguments have shape (clusters,):
    a cluster's summed advantage, and how much it weighs (its rows).

    The smallest p-value of ``n`` clusters is 2^-n.
    """
    count = len(advantages)
    if count <= ENUMERATED:
        numbers = np.arange(1, 2**count, dtype=np.int64)
        chosen = (numbers[:, None] >> np.arange(count)) & 1
        return Flips(_means(chosen.astype(np.float64), advantages, weights))
    rows = max(1, _CHUNK // count)
    parts: list[Floats] = []
    for start in range(0, draws, rows):
        chosen = _choices(min(rows, draws - start), count, seed + start)
        parts.append(_means(chosen, advantages, weights))
    return Flips(np.sort(np.concatenate(parts)))


@lru_cache(maxsize=4)
def _choices(size: int, count: int, seed: int) -> Floats:
    """Return random subsets of ``count`` clusters, shape (size, count), which all metrics share."""
    packed = np.random.default_rng(seed).integers(0, 256, (size, -(-count // 8)), dtype=np.uint8)
    chosen = np.unpackbits(packed, axis=1)[:, :count].astype(np.float64)
    return chosen[chosen.any(axis=1)]


def _means(chosen: Floats, advantages: Floats, weights: Floats) -> Floats:
    return np.sort((chosen @ advantages) / (chosen @ weights))
