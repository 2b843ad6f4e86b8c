"""Finds texts that are nearly the same: MinHash gives candidates, then the exact Jaccard similarity decides.

The result depends only on the set of texts, not on their order. ``near_index`` says how very many similar
texts are handled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt
import polars as pl

from tunewheel_curate.cleaning.normalization import comparison_key
from tunewheel_curate.similarity.near_index import NearIndex, empty_index, grow
from tunewheel_curate.similarity.shingling import Integers

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SimilarPair:
    """Two positions, ``first < second``, and their Jaccard similarity."""

    first: int
    second: int
    similarity: float


class SimilarPairs(Sequence[SimilarPair]):
    """Pairs of positions, ordered by ``first``, then ``second``. Kept in columns, since there may be
    millions."""

    def __init__(self, first: Integers, second: Integers, similarity: Floats) -> None:
        first, second = np.minimum(first, second), np.maximum(first, second)
        order = np.lexsort((second, first))
        self.first, self.second, self.similarity = first[order], second[order], similarity[order]

    @classmethod
    def of(cls, pairs: Iterable[SimilarPair]) -> SimilarPairs:
        """Return ``pairs`` in columns."""
        if isinstance(pairs, SimilarPairs):
            return pairs
        listed = list(pairs)
        return cls(
            np.array([pair.first for pair in listed], np.int64),
            np.array([pair.second for pair in listed], np.int64),
            np.array([pair.similarity for pair in listed], np.float64),
        )

    @overload
    def __getitem__(self, index: int) -> SimilarPair: ...
    @overload
    def __getitem__(self, index: slice) -> SimilarPairs: ...
    def __getitem__(self, index: int | slice) -> SimilarPair | SimilarPairs:
        if isinstance(index, slice):
            return self.where(index)
        return SimilarPair(int(self.first[index]), int(self.second[index]), float(self.similarity[index]))

    def __len__(self) -> int:
        return len(self.first)

    def __iter__(self) -> Iterator[SimilarPair]:
        columns = (self.first.tolist(), self.second.tolist(), self.similarity.tolist())
        return (SimilarPair(*pair) for pair in zip(*columns, strict=True))

    def where(self, chosen: slice | npt.NDArray[np.bool_]) -> SimilarPairs:
        """Return the pairs that ``chosen``, a mask or a slice, picks."""
        return SimilarPairs(self.first[chosen], self.second[chosen], self.similarity[chosen])

    def joined(self, others: SimilarPairs) -> SimilarPairs:
        """Return these and ``others``, both positions in the same list."""
        return SimilarPairs(
            np.concatenate([self.first, others.first]),
            np.concatenate([self.second, others.second]),
            np.concatenate([self.similarity, others.similarity]),
        )

    def at_least(self, minimum: float) -> SimilarPairs:
        """Return the pairs whose similarity reaches ``minimum``."""
        return self.where(self.similarity >= minimum)


def similar_pairs(texts: Sequence[str], *, minimum: float) -> SimilarPairs:
    """Return all found pairs of ``texts`` whose similarity is at least ``minimum``, by position."""
    keys = pl.Series([comparison_key(text) for text in texts], dtype=pl.String)
    return near_pairs(keys, minimum=minimum, earlier=empty_index())[0]


def near_pairs(keys: pl.Series, *, minimum: float, earlier: NearIndex) -> tuple[SimilarPairs, NearIndex]:
    """Return the similar pairs of ``keys`` (as ``comparison_key`` returns them) and the index they make.

    ``earlier`` saves comparisons and does not change the result. Each key is paired with the first equal key.
    """
    index, numbers = grow(earlier, keys)
    distinct, representative, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    assert len(distinct) == len(index)
    first, second, similarity = index.similar(minimum)
    copies = np.flatnonzero(representative[inverse] != np.arange(len(numbers)))
    pairs = SimilarPairs(
        np.concatenate([representative[first], representative[inverse][copies]]),
        np.concatenate([representative[second], copies]),
        np.concatenate([similarity, np.ones(len(copies))]),
    )
    return pairs, index


def components(size: int, edges: Iterable[tuple[int, int]] | SimilarPairs) -> list[int]:
    """Return, for each of ``size`` nodes, the smallest node it is connected to."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    if isinstance(edges, SimilarPairs):
        one, other = edges.first, edges.second
    else:
        both = np.array([*edges], np.int64).reshape(-1, 2)
        one, other = both[:, 0], both[:, 1]
    if not size:
        return []
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(size, size))
    labels = connected_components(graph, directed=False)[1]
    smallest = np.unique(labels, return_index=True)[1]
    return smallest[labels].tolist()


def pairs_among(pairs: Iterable[SimilarPair], before: Sequence[str], after: Sequence[str]) -> SimilarPairs:
    """Return ``pairs`` (positions in ``before``) as positions in ``after``; both list distinct names.

    Pairs that lost a member are left out.
    """
    columns = SimilarPairs.of(pairs)
    place = {name: position for position, name in enumerate(after)}
    moved = np.array([place.get(name, -1) for name in before], np.int64)
    first, second = moved[columns.first], moved[columns.second]
    both = (first >= 0) & (second >= 0)
    return SimilarPairs(first[both], second[both], columns.similarity[both])
