"""Which texts are nearly the same: MinHash candidates, then the exact Jaccard similarity.

Candidates: Broder (1997), "On the resemblance and containment of documents"; banding: Leskovec, Rajaraman,
Ullman, "Mining of Massive Datasets" §3.4. A pair becomes a candidate by its two texts alone, so the result
does not depend on order; a candidate is believed only after its true similarity was computed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rensa import RMinHash, RMinHashLSH  # pyright: ignore[reportAttributeAccessIssue]

from tunewheel_curate.normalization import comparison_key

SHINGLE_WORDS = 2
PERMUTATIONS = 128
BANDS = 32
"""With 4 rows each: a pair of similarity 0.6 is found with probability 0.99, one of 0.8 nearly always."""
SEED = 17

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class SimilarPair:
    """Two positions, ``first < second``, and their Jaccard similarity."""

    first: int
    second: int
    similarity: float


def shingles(text: str) -> frozenset[str]:
    """Return the runs of two words of ``text``; a shorter text is its own only shingle."""
    key = comparison_key(text)
    words = _WORD.findall(key)
    if len(words) < SHINGLE_WORDS:
        return frozenset(words or [key])
    return frozenset(" ".join(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the size of the intersection over the size of the union."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)


def similar_pairs(texts: Sequence[str], *, minimum: float) -> list[SimilarPair]:
    """Return all found pairs of ``texts`` whose similarity is at least ``minimum``, by position."""
    if len(texts) < 2:
        return []
    sets = [shingles(text) for text in texts]
    sketches = RMinHash.from_token_sets([sorted(s) for s in sets], num_perm=PERMUTATIONS, seed=SEED)
    index = RMinHashLSH(minimum, PERMUTATIONS, BANDS)
    index.insert_many(sketches)
    pairs: list[SimilarPair] = []
    for first, candidates in enumerate(index.query_all(sketches)):
        for second in sorted(set(candidates)):
            if second <= first:
                continue
            similarity = jaccard(sets[first], sets[second])
            if similarity >= minimum:
                pairs.append(SimilarPair(first, second, similarity))
    return pairs


def components(size: int, edges: Iterable[tuple[int, int]]) -> list[int]:
    """Return, for each of ``size`` nodes, the smallest node it is connected to."""
    parent = list(range(size))

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in edges:
        low, high = sorted((root(one), root(other)))
        parent[high] = low
    return [root(node) for node in range(size)]


def pairs_among(
    pairs: Iterable[SimilarPair], before: Sequence[str], after: Sequence[str]
) -> list[SimilarPair]:
    """Return ``pairs`` (positions in ``before``) as positions in ``after``; both list distinct names.

    Pairs that lost a member are left out.
    """
    place = {name: position for position, name in enumerate(after)}
    moved: list[SimilarPair] = []
    for pair in pairs:
        one, other = place.get(before[pair.first]), place.get(before[pair.second])
        if one is not None and other is not None:
            moved.append(SimilarPair(min(one, other), max(one, other), pair.similarity))
    return moved
