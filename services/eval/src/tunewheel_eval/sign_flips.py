"""Sign flips on clusters: is an advantage more than luck, where rows of one cluster are one observation?

Were candidate and other equally good, they could be exchanged within any cluster, which flips the sign of the
cluster's advantage. So the advantages that all choices of signs give are how far luck goes (Fisher, "The
Design of Experiments", 1935, §21; for language models: Dror et al., "The Hitchhiker's Guide to Testing
Statistical Significance in NLP", ACL 2018). An advantage of at least ``d`` is tested by flips of what exceeds
``d``: rejecting it is the same as ``d`` lying below a quantile of the means over random subsets of clusters,
Hartigan's typical values ("Using subsample values as typical values", JASA 64, 1969), which is the interval
in closed form. It is exact for differences that are symmetric about their mean, which those of two equal
models are; skewed ones about a mean of zero have no exact test.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ENUMERATED = 14
"""Up to so many clusters all signs are tried: 2^14 of them."""
DRAWS = 20_000
"""Random choices of signs where there are more clusters: at alpha .005, 100 of them lie beyond."""
_CHUNK = 4_000_000
"""Signs at once: 32 MB."""
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True)
class Flips:
    """The subset means of one comparison, sorted, with the share of choices that pick no cluster."""

    means: Floats
    """Shape (choices,); without the choice that flips no cluster, which no value can beat."""

    def p_value(self, advantage: float) -> float:
        """Return the probability of what was observed, were the true advantage ``advantage``."""
        reached = int(np.searchsorted(self.means, advantage + _ROUNDING, side="right"))
        return (1 + reached) / (1 + len(self.means))

    def low(self, alpha: float) -> float:
        """Return the smallest advantage that is not rejected at ``alpha``; -inf where none is."""
        beyond = int(alpha * (1 + len(self.means)) + _ROUNDING)
        return float(self.means[beyond - 1]) if beyond else -np.inf

    def high(self, alpha: float) -> float:
        """Return the largest advantage that is not rejected from above at ``alpha``; inf where none is."""
        beyond = int(alpha * (1 + len(self.means)) + _ROUNDING)
        return float(self.means[-beyond]) if beyond else np.inf


def flip(advantages: Floats, weights: Floats, *, seed: int) -> Flips:
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
    for start in range(0, DRAWS, rows):
        chosen = _choices(min(rows, DRAWS - start), count, seed + start)
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
