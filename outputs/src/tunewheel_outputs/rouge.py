"""ROUGE F1 (Lin, "ROUGE: A Package for Automatic Evaluation of Summaries", 2004), as rouge-score computes it.

rouge-score itself is not used for two reasons. It computes the longest common subsequence in Python in
quadratic time, which takes minutes for an answer of 100,000 characters. And its tokeniser keeps only a-z and
0-9, so most scripts lose all text. A test checks that both give the same figures. In scripts without spaces
each character counts as a word, as is usual for Chinese (Hu, Chen and Zhu, "LCSTS", EMNLP 2015).
"""

from __future__ import annotations

from collections import Counter

from tunewheel_outputs.texts import words_of


def rouge_n(answer: str, expected: str, n: int) -> float:
    """Return the F1 of the n-grams that answer and expected answer share."""
    ours, theirs = _grams(words_of(answer), n), _grams(words_of(expected), n)
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def rouge_l(answer: str, expected: str) -> float:
    """Return the F1 of the longest common subsequence of words."""
    from rapidfuzz.distance import LCSseq

    ours, theirs = words_of(answer), words_of(expected)
    return _f1(LCSseq.similarity(ours, theirs), len(ours), len(theirs))


def _grams(words: list[str], n: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(words[start:] for start in range(n)), strict=False))


def _f1(shared: int, ours: int, theirs: int) -> float:
    return 2 * shared / (ours + theirs) if shared else 0.0
