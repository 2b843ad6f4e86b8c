"""Keyed sketches of questions. They recognise a rewording of a question that was held out, and keep no text.

A sketch has one bit for each of ``SKETCH_BITS`` permutations: a bit of the least hash of a word pair (Broder
1997, "On the resemblance and containment of documents"; Li and König 2010, "b-Bit Minwise Hashing"). If the
Jaccard similarity of two texts is s, a bit is equal with the probability (1 + s) / 2. So the share of equal
bits estimates s, with a standard error of .025 at .6. The hashes of words are keyed: without the secret
nobody can compare a text with a sketch. With the secret one can compare whole texts, but find no single
words, because a word changes too few bits.

A question of ``SHORT_WORDS`` words has too few word pairs for that: two words more leave half of them. It is
recognised by its words in their order, as a part of a longer question (``short_runs``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import polars as pl

from tunewheel_curate.similarity.shingling import mixed, shingle_sets

SKETCH_BITS = 1024
STANDARD_ERROR = 0.025
SCREEN_BITS = 256
"""The first bits, which rule out most pairs. They estimate a similarity with a standard error of .05."""
SHORT_WORDS, MORE_WORDS = 3, 2
_SCREENED = 5 * 0.05
_FACTORS = mixed(np.arange(1, SKETCH_BITS + 1, dtype=np.uint64)) | np.uint64(1)
_ROWS_AT_ONCE = 2_048
_BIT = np.uint64(24)

Likeness = npt.NDArray[np.float32]
Signs = npt.NDArray[np.float32]
"""Bits as -1 and 1, so that the product of two sketches counts their equal bits."""


def sketches_of(keys: pl.Series, secret: bytes) -> list[str]:
    """Return the sketches of ``keys``, texts as ``comparison_key`` returns them, in hex."""
    found: list[str] = []
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        found += [bits.tobytes().hex() for bits in _bits(keys.slice(start, _ROWS_AT_ONCE), secret)]
    return found


def likeness(keys: pl.Series, sketches: Iterable[str], secret: bytes, *, least: float) -> Likeness:
    """Return for each of ``keys`` its estimated similarity to the nearest text of ``sketches``: (keys,).
    Where that is certainly below ``least`` it is 0."""
    held = _signs(np.array([list(bytes.fromhex(one)) for one in sorted(sketches)], np.uint8))
    found = np.zeros(len(keys), np.float32)
    for start in range(0, len(keys) if len(held) else 0, _ROWS_AT_ONCE):
        new = _signs(_bits(keys.slice(start, _ROWS_AT_ONCE), secret))
        screened = _estimates(new, held, SCREEN_BITS) >= least - _SCREENED
        rows = np.flatnonzero(screened.any(axis=1))
        found[start + rows] = _estimates(new[rows], held, SKETCH_BITS).max(axis=1, initial=0)
    return found


def short_runs(words: str) -> Iterator[str]:
    """Yield the short questions that a text holds with at most ``MORE_WORDS`` more (``words``: with single
    blanks): runs of two to ``SHORT_WORDS`` words. One word alone is in too many questions."""
    parts = words.split(" ")
    for size in range(max(2, len(parts) - MORE_WORDS), min(SHORT_WORDS, len(parts)) + 1):
        yield from (" ".join(parts[start : start + size]) for start in range(len(parts) - size + 1))


def _bits(keys: pl.Series, secret: bytes) -> npt.NDArray[np.uint8]:
    """Return the sketches of ``keys``, eight bits a number: (keys, SKETCH_BITS / 8)."""
    sets = shingle_sets(keys, secret=secret)
    bits = np.empty((len(keys), SKETCH_BITS), np.bool_)
    for place, factor in enumerate(_FACTORS):
        least = np.minimum.reduceat(sets.values * factor, sets.offsets[:-1])
        bits[:, place] = (least >> _BIT) & np.uint64(1)
    return np.packbits(bits, axis=1)


def _signs(bits: npt.NDArray[np.uint8]) -> Signs:
    return np.unpackbits(bits.reshape(-1, SKETCH_BITS // 8), axis=1).astype(np.float32) * 2 - 1


def _estimates(new: Signs, held: Signs, bits: int) -> Signs:
    """Return the similarity of every pair by the first ``bits``: (new, held)."""
    return new[:, :bits] @ held[:, :bits].T / np.float32(bits)
