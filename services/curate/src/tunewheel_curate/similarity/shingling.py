"""Turns texts into sets of hashed word bigrams and their MinHash bands, which near-duplicate search compares.

Broder (1997, "On the resemblance and containment of documents") calls a word bigram a 2-shingle. Words and
bigrams are hashed by BLAKE2b and a multiplicative mix. A library's hash might change with its version, but
stored signatures must stay valid.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl
from rensa import RMinHash  # type: ignore[missing-module-attribute]

HASH_BITS = 50
PERMUTATIONS = 128
BANDS = 32
"""With 4 rows each: a pair of similarity 0.6 is found with probability 0.99, one of 0.8 nearly always."""
SEED = 17
ALGORITHM = f"bigrams50-rminhash{RMinHash.ALGORITHM_VERSION}-{PERMUTATIONS}x{BANDS}-seed{SEED}-2"
"""Names everything that a signature depends on. Signatures under another name cannot be reused."""

UInt64s = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.int64]

_ROWS_AT_ONCE = 1 << 12
"""How many rows are processed at once. Row number and hash share one 64-bit word, so that one sort orders
both. More rows would fit, but the intermediate arrays take 2 kB per row."""
_HASH_MASK = np.uint64((1 << HASH_BITS) - 1)
_ROW_SHIFT = np.uint64(HASH_BITS)
_DROP = np.uint64(64 - HASH_BITS)
_LEFT, _RIGHT = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_SKETCHED_AT_ONCE = 2_048
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.array(
    [0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53, 0x9FB21C651E98DF25, 0xD6E8FEB86659FD93], np.uint64
)


@dataclass(frozen=True)
class ShingleSets:
    """One set of hashes per text: ``values[offsets[i]:offsets[i + 1]]``, ascending, never empty."""

    values: UInt64s
    offsets: Integers

    @property
    def sizes(self) -> Integers:
        """Return how many shingles each text has: (texts,)."""
        return np.diff(self.offsets)

    def joined(self, other: ShingleSets) -> ShingleSets:
        """Return the sets of both, these first."""
        return ShingleSets(
            np.concatenate([self.values, other.values]),
            np.concatenate([self.offsets, other.offsets[1:] + self.offsets[-1]]),
        )


def shingle_sets(keys: pl.Series, *, secret: bytes = b"") -> ShingleSets:
    """Return the hashed shingles of ``keys``, texts as ``comparison_key`` returns them. A ``secret`` of at
    most 64 bytes keys the hashes of the words."""
    values: list[UInt64s] = [np.empty(0, np.uint64)]
    counts: list[Integers] = [np.zeros(1, np.int64)]
    words = _Words(secret)
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        found, sizes = _chunk_sets(keys.slice(start, _ROWS_AT_ONCE), words)
        values.append(found)
        counts.append(sizes)
    return ShingleSets(np.concatenate(values), np.cumsum(np.concatenate(counts)))


def _chunk_sets(keys: pl.Series, words_seen: _Words) -> tuple[UInt64s, Integers]:
    words = keys.str.extract_all(r"\w+")
    lengths = words.list.len().to_numpy().astype(np.int64)
    hashes = words_seen.hashes(words.explode().drop_nulls())
    rows = np.repeat(np.arange(len(keys), dtype=np.uint64), lengths)
    together = rows[:-1] == rows[1:]
    alone = lengths[rows.astype(np.int64)] == 1
    wordless = np.flatnonzero(lengths == 0)
    of_row = np.concatenate([rows[:-1][together], rows[alone], wordless.astype(np.uint64)])
    of_pair = mixed(hashes[:-1] * _LEFT + hashes[1:] * _RIGHT)[together]
    found = np.concatenate([of_pair, hashes[alone], text_hashes(keys.gather(wordless), words_seen.secret)])
    packed = distinct((of_row << _ROW_SHIFT) | (found >> _DROP))
    sizes = np.bincount((packed >> _ROW_SHIFT).astype(np.int64), minlength=len(keys))
    return packed & _HASH_MASK, sizes


def word_runs(keys: pl.Series, length: int, *, wanted: UInt64s | None = None) -> tuple[Integers, UInt64s]:
    """Return every run of ``length`` words: the position of its text in ``keys``, and its hash. With
    ``wanted``, only runs with these hashes are returned."""
    rows: list[Integers] = [np.empty(0, np.int64)]
    hashes: list[UInt64s] = [np.empty(0, np.uint64)]
    words_seen = _Words()
    for start in range(0, len(keys), _ROWS_AT_ONCE):
        words = keys.slice(start, _ROWS_AT_ONCE).str.extract_all(r"\w+")
        of_word = words_seen.hashes(words.explode().drop_nulls())
        row = np.repeat(np.arange(start, start + len(words)), words.list.len().to_numpy().astype(np.int64))
        count = max(len(row) - length + 1, 0)
        run = np.zeros(count, np.uint64)
        for offset in range(length):
            run = mixed(run * _LEFT + of_word[offset : offset + count])
        inside = row[:count] == row[len(row) - count :]
        if wanted is not None:
            inside &= np.isin(run, wanted)
        rows.append(row[:count][inside])
        hashes.append(run[inside])
    return np.concatenate(rows), np.concatenate(hashes)


class _Words:
    """A cache of words and their hashes: most words of a text occurred in earlier texts."""

    def __init__(self, secret: bytes = b"") -> None:
        self.secret = secret
        self._table = self._hashed(pl.Series([], dtype=pl.String))

    def hashes(self, words: pl.Series) -> UInt64s:
        """Return the hash of each of ``words``: (words,)."""
        asked = words.alias("word").to_frame()
        new = asked.unique().join(self._table, on="word", how="anti")["word"]
        self._table = pl.concat([self._table, self._hashed(new)])
        return asked.join(self._table, on="word", how="left", maintain_order="left")["hash"].to_numpy()

    def _hashed(self, words: pl.Series) -> pl.DataFrame:
        return pl.DataFrame({"word": words, "hash": text_hashes(words, self.secret)})


def text_hashes(texts: Iterable[str], secret: bytes = b"") -> UInt64s:
    """Return 64 bits of BLAKE2b, keyed if there is a ``secret``, for each text: (texts,)."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8, key=secret).digest() for text in texts)
    return np.frombuffer(digests, dtype="<u8").astype(np.uint64)


def distinct(values: UInt64s) -> UInt64s:
    """Return the distinct ``values``, ascending, like ``np.unique`` but 30 times as fast.

    Since 2.3 ``np.unique`` hashes integers; sorting them, as here, is vectorised.
    """
    ordered = np.sort(values)
    first = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=first[1:])
    return ordered[first]


def mixed(values: UInt64s) -> UInt64s:
    """Return hashes of ``values`` in which every bit depends on all bits (Steele et al. 2014, "Fast
    splittable pseudorandom number generators", SplitMix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def band_keys(sets: ShingleSets) -> npt.NDArray[np.uint32]:
    """Return the key of every band of every text: (BANDS, texts). Two texts that share a band are worth
    comparing. The bands of a text depend on that text alone.

    Candidates by MinHash: Broder (1997); banding: Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets"
    §3.4.
    """
    count = len(sets.offsets) - 1
    keys = np.empty((BANDS, count), np.uint32)
    for start in range(0, count, _SKETCHED_AT_ONCE):
        offsets = sets.offsets[start : start + _SKETCHED_AT_ONCE + 1]
        signatures = RMinHash.digest_matrix_from_flat_token_hashes(
            sets.values[offsets[0] : offsets[-1]] * _SPREAD,
            (offsets - offsets[0]).astype(np.uint64),
            PERMUTATIONS,
            SEED,
        )
        rows = np.array(signatures.to_rows(), dtype=np.uint64).reshape(len(offsets) - 1, BANDS, -1)
        mixed = (rows * _FACTORS).sum(axis=2, dtype=np.uint64)
        mixed ^= mixed >> np.uint64(29)
        keys[:, start : start + len(rows)] = (mixed * _SPREAD >> np.uint64(32)).T
    return keys
