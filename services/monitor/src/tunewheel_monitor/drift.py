"""Has production moved away from what the model was trained on? Pure statistics, no I/O.

Every detector returns a ``Finding``; it drifted when its p-value lies below the threshold. What each one
can see, measured on real texts, is in ``docs/adr/0003-static-embeddings.md``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from tunewheel_runtime.static_embedding import Projection, Vectors, unit_length

Kernel = npt.NDArray[np.float32]
PERMUTATIONS = 999
MOST_PERMUTATIONS = 9_999
KERNEL_WIDTH = 0.3
"""Share of the median squared distance: a narrower kernel than the usual median sees a few new topics among
many old ones better (measured; see the ADR)."""
MOST_TEXTS = 2_000
"""Of a window that MMD compares, spread over it: time and memory grow with the square of their number, and
``drift.window`` has no upper bound."""
_MEDIAN_ROWS = 500
"""Rows whose distances stand for all when the kernel's width is chosen."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What one detector saw. ``statistic`` is what ``statistic_name`` names; ``p_value`` is corrected for
    the number of tests behind it."""

    statistic_name: str
    statistic: float
    p_value: float
    threshold: float

    @property
    def drifted(self) -> bool:
        return self.p_value < self.threshold


@dataclass(frozen=True)
class InputReference:
    """The texts a model was trained and tested on, as the input detector needs them."""

    texts: Vectors
    """(texts, dimensions): embeddings as they come from the table."""

    @cached_property
    def projection(self) -> Projection:
        return Projection.fit(self.texts)

    @cached_property
    def cleaned(self) -> Vectors:
        return self.projection.apply(self.texts)

    @cached_property
    def distances(self) -> Vectors:
        """(texts,): cosine distance of each text to the centroid of the others.

        With the text itself in the centroid a reference would look closer to it than any window can be.
        """
        units = unit_length(self.texts)
        others = unit_length(units.sum(axis=0) - units)
        return 1.0 - np.einsum("ij,ij->i", units, others)

    def distances_of(self, window: Vectors) -> Vectors:
        """Return the cosine distance of each of ``window``'s texts to the reference's centroid.

        The common component stays in: without it the centroid is noise, and the test against it finds
        drift where there is none.
        """
        centroid = unit_length(unit_length(self.texts).sum(axis=0)[None, :])[0]
        return 1.0 - unit_length(window) @ centroid

    def novelty_of(self, window: Vectors) -> Vectors:
        """Return the cosine distance of each of ``window``'s texts to its nearest reference text."""
        return 1.0 - (self.projection.apply(window) @ self.cleaned.T).max(axis=1)


def input_drift(reference: InputReference, window: Vectors, *, p_value: float, seed: int) -> Finding:
    """Compare a window's embeddings (texts, dimensions) with the reference's.

    Two tests, Bonferroni-corrected: Kolmogorov-Smirnov on the distances to the centroid sees texts that are
    unusual as a whole, maximum mean discrepancy (Gretton et al., JMLR 2012) sees a changed mixture.
    ``seed`` draws the permutations: the same window always gives the same p-value.
    """
    from scipy import stats

    ks: Any = stats.ks_2samp(reference.distances, reference.distances_of(window))
    spread = np.linspace(0, len(window) - 1, min(len(window), MOST_TEXTS)).round().astype(int)
    cleaned = reference.projection.apply(window[spread])
    squared, p_mmd = mmd_permutation(
        reference.cleaned, cleaned, permutations=permutations_for(p_value / 2), seed=seed
    )
    p_ks = float(ks.pvalue)
    name, statistic = ("ks", float(ks.statistic)) if p_ks < p_mmd else ("mmd2", squared)
    return Finding(name, statistic, min(1.0, 2 * min(p_ks, p_mmd)), p_value)


def rate_drift(name: str, *, window: tuple[int, int], reference: tuple[int, int], p_value: float) -> Finding:
    """Test whether a rate rose: (bad, total) of the window against (bad, total) of the reference.

    Fisher's exact test, one-sided. ``statistic`` is the rise of the rate.
    """
    from scipy import stats

    (bad, total), (bad_before, total_before) = window, reference
    if not total or not total_before:
        return Finding(name, 0.0, 1.0, p_value)
    table = [[bad, total - bad], [bad_before, total_before - bad_before]]
    exact: Any = stats.fisher_exact(table, alternative="greater")
    p = float(exact.pvalue)
    return Finding(name, bad / total - bad_before / total_before, min(1.0, p), p_value)


def mmd_permutation(
    reference: Vectors, window: Vectors, *, permutations: int, seed: int
) -> tuple[float, float]:
    """Return the unbiased squared MMD under an RBF kernel, and its permutation p-value."""
    n, m = len(reference), len(window)
    kernel = rbf_kernel(np.vstack([reference, window]))
    chosen = np.zeros((n + m, permutations + 1), dtype=np.float32)
    chosen[n:, 0] = 1
    generator = np.random.default_rng(seed)
    chosen[:, 1:] = generator.permuted(np.tile(chosen[:, :1], (1, permutations)), axis=0)
    sums = kernel @ chosen
    within_window = np.einsum("ij,ij->j", chosen, sums, dtype=np.float64)
    across = sums.sum(axis=0, dtype=np.float64) - within_window
    within_reference = kernel.sum(dtype=np.float64) - within_window - 2 * across
    squared = within_reference / (n * (n - 1)) + within_window / (m * (m - 1)) - 2 * across / (n * m)
    # float32 sums of a tie may differ in the last bits: count it as at least as large
    at_least = np.count_nonzero(squared[1:] >= squared[0] - 1e-9)
    return float(squared[0]), (1 + int(at_least)) / (permutations + 1)


def rbf_kernel(units: Vectors) -> Kernel:
    """Return exp(-d² / width) of all pairs, zero on the diagonal, in single precision. ``width`` is
    ``KERNEL_WIDTH`` times the median of d²."""
    rows = units.astype(np.float32)
    lengths = np.einsum("ij,ij->i", rows, rows)
    squared = np.maximum(lengths[:, None] + lengths[None, :] - 2 * rows @ rows.T, 0)
    step = max(1, len(rows) // _MEDIAN_ROWS)
    sample = squared[::step, ::step]
    median = float(np.median(sample[np.triu_indices(len(sample), 1)]))
    width = KERNEL_WIDTH * median or 1.0
    kernel = np.exp(-squared / width)
    np.fill_diagonal(kernel, 0)
    return kernel


def permutations_for(p_value: float) -> int:
    """Return how many permutations resolve ``p_value``: their smallest p is 1 / (permutations + 1)."""
    return int(min(MOST_PERMUTATIONS, max(PERMUTATIONS, 5 / p_value)))


def farthest(scores: Sequence[float] | Vectors, count: int) -> list[int]:
    """Return the indexes of the ``count`` highest scores, highest first."""
    return [int(i) for i in np.argsort(-np.asarray(scores), kind="stable")[:count]]
