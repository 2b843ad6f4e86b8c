"""The shingles of a text in plain words: what curate's hashed shingles are compared with."""

from __future__ import annotations

import re

from tunewheel_curate.cleaning.normalization import comparison_key

SHINGLE_WORDS = 2


def shingles(text: str) -> frozenset[str]:
    """Return the word bigrams of ``text``; a shorter text is its only shingle."""
    key = comparison_key(text)
    words = re.findall(r"\w+", key)
    if len(words) < SHINGLE_WORDS:
        return frozenset(words or [key])
    return frozenset(" ".join(words[i : i + SHINGLE_WORDS]) for i in range(len(words) - SHINGLE_WORDS + 1))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """Return the size of the intersection over the size of the union."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared)
