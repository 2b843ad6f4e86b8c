"""Search by words: BM25 over postings in numpy.

Postings hold only counts and lengths. Values that depend on the whole collection (idf, mean length) are
computed when the postings are opened, so a changed passage changes only its own postings.

Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, with Lucene's
idf, log(1 + (N - df + 0.5) / (df + 0.5)), which is never negative.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load, save

K1, B = 1.5, 0.75
_WORD = re.compile(r"\w\w+")
_HUMPS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]{2,}"
)
"""Runs of scripts without spaces between words: Thai, Lao, Burmese, Khmer, kana, Han."""

Numbers = npt.NDArray[np.int32]
Offsets = npt.NDArray[np.int64]


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, in order. A name such as ``KubePodCrash`` also gives its
    parts. Scripts without spaces give every pair of neighbouring characters."""
    found: list[str] = []
    for word in _WORD.findall(text):
        found.append(word.lower())
        parts = _HUMPS.split(word)
        if len(parts) > 1:
            found += [part.lower() for part in parts if len(part) > 1]
        for run in _UNSPACED.findall(word):
            found += [run[at : at + 2] for at in range(len(run) - 1)] if len(run) > 2 else []
    return found


def marks_of(text: str, question: str) -> tuple[tuple[int, int], ...]:
    """Return where the words of ``text`` begin and end that ``question`` has too."""
    asked = set(words_of(question))
    return tuple(found.span() for found in _WORD.finditer(text) if not asked.isdisjoint(words_of(found[0])))


@dataclass(frozen=True)
class Postings:
    """Which passages hold which words, and how often. The same passages always give the same arrays."""

    vocabulary: tuple[str, ...]
    """All words, sorted."""
    begins: Offsets
    """(words + 1,): the postings of word i are ``begins[i]`` up to ``begins[i + 1]``."""
    rows: Numbers
    """The passage of each posting, ascending within a word."""
    counts: Numbers
    """How often the word occurs in that passage."""
    lengths: Numbers
    """(passages,): the number of words of each passage."""

    @classmethod
    def of(cls, texts: Sequence[str]) -> Postings:
        """Return the postings of ``texts``, row by row."""
        return cls.merged(None, [], list(range(len(texts))), texts)

    @classmethod
    def merged(
        cls,
        previous: Postings | None,
        kept: Sequence[tuple[int, int]],
        rows: Sequence[int],
        texts: Sequence[str],
    ) -> Postings:
        """Return the postings of passages kept from ``previous`` and of new ``texts``.

        Args:
            kept: pairs (row in ``previous``, row here) of unchanged passages.
            rows: the row here of each of ``texts``. Together with ``kept`` it gives every row from 0 once.
        """
        previous = previous or _EMPTY
        read = [words_of(text) for text in texts]
        moved = np.full(len(previous.lengths), -1, np.int64)
        old_rows = np.array([old for old, _ in kept], np.int64)
        moved[old_rows] = np.array([new for _, new in kept], np.int64)
        lengths = np.zeros(len(kept) + len(rows), np.int32)
        lengths[moved[old_rows]] = previous.lengths[old_rows]
        lengths[np.array(rows, np.int64)] = np.array([len(words) for words in read], np.int32)

        old_terms = np.repeat(np.arange(len(previous.vocabulary)), np.diff(previous.begins))
        stays = moved[previous.rows] >= 0
        old_terms, old_at, old_counts = old_terms[stays], moved[previous.rows][stays], previous.counts[stays]
        in_use = np.unique(old_terms)
        vocabulary = sorted({previous.vocabulary[term] for term in in_use}.union(*read))
        number = {word: at for at, word in enumerate(vocabulary)}
        renumbered = np.full(len(previous.vocabulary), -1, np.int64)
        renumbered[in_use] = np.array([number[previous.vocabulary[term]] for term in in_use], np.int64)

        said = np.fromiter((number[word] for word in chain.from_iterable(read)), np.int64)
        at = np.repeat(np.array(rows, np.int64), np.array([len(words) for words in read], np.int64))
        width = max(1, len(lengths))
        pairs, counts = np.unique(said * width + at, return_counts=True)
        terms, at = np.divmod(pairs, width)
        terms = np.concatenate([renumbered[old_terms], terms])
        at = np.concatenate([old_at, at])
        counts = np.concatenate([old_counts, counts])
        order = np.lexsort((at, terms))
        begins = np.searchsorted(terms[order], np.arange(len(vocabulary) + 1)).astype(np.int64)
        return cls(
            tuple(vocabulary), begins, at[order].astype(np.int32), counts[order].astype(np.int32), lengths
        )

    def to_bytes(self) -> bytes:
        """Return the postings as safetensors. The vocabulary is UTF-8 with one word per line."""
        words = np.frombuffer("\n".join(self.vocabulary).encode("utf-8", "surrogatepass"), np.uint8)
        return save(
            {
                "begins": self.begins,
                "counts": self.counts,
                "lengths": self.lengths,
                "rows": self.rows,
                "vocabulary": words,
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Postings:
        """Read the output of ``to_bytes``.

        Raises:
            ValueError: ``data`` is no such output, or its arrays do not fit together.
        """
        try:
            arrays = load(data)
            begins, rows, counts = arrays["begins"], arrays["rows"], arrays["counts"]
            lengths = arrays["lengths"]
            text = arrays["vocabulary"].tobytes().decode("utf-8", "surrogatepass")
        except Exception as error:  # safetensors raises its own kinds
            raise ValueError(f"is no file of postings: {error}") from error
        vocabulary = tuple(text.split("\n")) if text else ()
        fits = (
            begins.shape == (len(vocabulary) + 1,)
            and rows.shape == counts.shape == (int(begins[-1]) if len(begins) else 0,)
            and bool(np.all(np.diff(begins) >= 0))
            and (not rows.size or (int(rows.min()) >= 0 and int(rows.max()) < len(lengths)))
        )
        if not fits:
            raise ValueError("holds arrays that do not fit together")
        return cls(vocabulary, begins, rows, counts, lengths)


_EMPTY = Postings(
    (), np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.int32), np.zeros(0, np.int32)
)


class WordSearch:
    """Ranks passages by BM25. Read-only, so any thread may search."""

    def __init__(self, postings: Postings) -> None:
        self._postings = postings
        self._number = {word: at for at, word in enumerate(postings.vocabulary)}
        lengths = postings.lengths.astype(np.float32)
        mean = float(lengths.mean()) if lengths.size else 1.0
        norms = K1 * (1 - B + B * lengths / max(1.0, mean))
        frequency = np.diff(postings.begins)
        idf = np.log1p((len(lengths) - frequency + 0.5) / (frequency + 0.5))
        self._idf, self._idf_of_unknown = idf, float(np.log1p(2 * len(lengths) + 1))
        weights = postings.counts / (postings.counts + norms[postings.rows]) * np.repeat(idf, frequency)
        self._weights = weights.astype(np.float32)
        """The contribution of each posting to the score of its passage."""

    def scores(self, question: str) -> npt.NDArray[np.floating[Any]]:
        """Return the score of each passage, (passages,); 0: it shares no word with ``question``. Only the
        postings of the question's words are read."""
        begins, number = self._postings.begins, self._number
        rows: list[Numbers] = []
        weights: list[npt.NDArray[np.float32]] = []
        for word, times in Counter(words_of(question)).items():
            if (at := number.get(word)) is not None:
                found = slice(begins[at], begins[at + 1])
                rows.append(self._postings.rows[found])
                weights.append(self._weights[found] * np.float32(times))
        passages = len(self._postings.lengths)
        if not rows:
            return np.zeros(passages)
        scores: npt.NDArray[Any] = np.bincount(np.concatenate(rows), np.concatenate(weights), passages)
        return scores

    def shares(self, question: str) -> npt.NDArray[np.float32]:
        """Return for each passage which share of the question's words it has, (passages,), from 0 to 1. A
        word weighs its idf; a word that no passage has weighs most."""
        begins, number = self._postings.begins, self._number
        words = set(words_of(question))
        found = [at for word in words if (at := number.get(word)) is not None]
        rows = [self._postings.rows[begins[at] : begins[at + 1]] for at in found]
        total = float(self._idf[found].sum()) + self._idf_of_unknown * (len(words) - len(found))
        if not rows:
            return np.zeros(len(self._postings.lengths), np.float32)
        weights = np.repeat(self._idf[found], [len(some) for some in rows])
        summed: npt.NDArray[Any] = np.bincount(
            np.concatenate(rows), weights, minlength=len(self._postings.lengths)
        )
        return (summed / total).astype(np.float32)


def best_of(scores: npt.NDArray[np.floating[Any]], depth: int) -> list[int]:
    """Return the rows of the ``depth`` highest scores above zero, the highest first, ties by row."""
    least = np.partition(scores, len(scores) - depth)[len(scores) - depth] if len(scores) > depth else 0
    found = np.flatnonzero(scores >= least if least > 0 else scores > 0)
    return found[np.lexsort((found, -scores[found]))[:depth]].tolist()
