"""Reciprocal rank fusion: merges several rankings whose scores cannot be compared.

score(row) = sum over the rankings that have the row of 1 / (k + rank), ranks from 1.

Source: Cormack, Clarke and Büttcher, "Reciprocal rank fusion outperforms Condorcet and individual rank
learning methods", SIGIR 2009, which sets k = 60.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

K = 60
"""A larger value makes the first places count less above later ones."""


class Fused(NamedTuple):
    row: int
    score: float
    ranks: tuple[int | None, ...]
    """The row's place in each ranking, from 1. None: that ranking does not have the row."""


def fused(rankings: Sequence[Sequence[int]], *, limit: int, k: int = K) -> list[Fused]:
    """Return the best ``limit`` rows of all ``rankings``, the best first. Rows with equal scores are ordered
    by their number, so that the same rankings always give the same order.

    ``rankings``: each holds rows, the best first, and no row twice.
    """
    places = [{int(row): rank for rank, row in enumerate(ranking, 1)} for ranking in rankings]
    scores: dict[int, float] = {}
    for place in places:
        for row, rank in place.items():
            scores[row] = scores.get(row, 0.0) + 1.0 / (k + rank)
    best = sorted(scores, key=lambda row: (-scores[row], row))[:limit]
    return [Fused(row, scores[row], tuple(place.get(row) for place in places)) for row in best]
