"""Finds questions that are nearly the same, among some thousands, with bounded time and memory."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from zlib import crc32

THRESHOLD = 0.8
"""Jaccard similarity of word pairs, as ``dataset.near_duplicate_threshold`` is by default."""
MOST_LIKE = 50
"""Of very many texts that share a pair of words, only the first are compared."""


def near_duplicates(texts: Sequence[str]) -> int:
    """Return how many of ``texts`` are nearly the same as an earlier one. Equal ones count as well.

    Two sets that share 0.8 share one of their rarest pairs (prefix filtering: Bayardo, Ma and Srikant 2007).
    """
    sets = [_pairs(text) for text in texts]
    often = defaultdict[int, int](int)
    for one in sets:
        for pair in one:
            often[pair] += 1
    holding = defaultdict[int, list[int]](list)
    found = 0
    for place, one in enumerate(sets):
        rarest = sorted(one, key=lambda pair: (often[pair], pair))[: len(one) - int(THRESHOLD * len(one)) + 1]
        others = {other for pair in rarest for other in holding[pair]}
        found += any(_alike(one, sets[other]) for other in others)
        for pair in rarest:
            if len(holding[pair]) < MOST_LIKE:
                holding[pair].append(place)
    return found


def _alike(one: frozenset[int], other: frozenset[int]) -> bool:
    shared = len(one & other)
    return shared >= THRESHOLD * (len(one) + len(other) - shared)


def _pairs(text: str) -> frozenset[int]:
    words = re.findall(r"\w+", text.casefold())
    pairs = zip(words, [*words[1:], ""], strict=False)
    # Python's own hashes differ from process to process, and with them which texts are compared.
    return frozenset(crc32(f"{one} {other}".encode("utf-8", "replace")) for one, other in pairs)
