"""A growing index of near-duplicates: texts that were compared once are not compared again.

It holds hashes, never texts. The same set of texts always gives the same bytes, whatever the index grew from.
So it is a cache: deleting or rebuilding it changes no dataset.

Texts are numbered by the order of their digests. A bucket holds texts that share a band. In a bucket of up to
``FULL_BUCKET`` texts all pairs are compared. In a larger one each text is compared only with the first
``PIVOTS`` texts: a million similar texts would otherwise need 10^12 comparisons. They still form one cluster.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tunewheel_curate.similarity.shingling import (
    BANDS,
    HASH_BITS,
    Integers,
    ShingleSets,
    UInt64s,
    band_keys,
    distinct,
    shingle_sets,
)

FULL_BUCKET = 48
PIVOTS = 4
FLOOR = 0.5
"""The least similarity that can be asked for. Pairs whose sizes rule it out are not compared."""

UInt32s = npt.NDArray[np.uint32]

_HALF = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_BATCH_SHINGLES = 1 << 17
_MERGE_CODES = 1 << 22


@dataclass(frozen=True)
class NearIndex:
    """Texts, their bands, and the number of shingles that each candidate pair shares."""

    high: UInt64s
    """(texts,): the first 64 bits of each text's SHA-256; with ``low`` it orders and names the texts."""
    low: UInt64s
    sizes: UInt32s
    """(texts,): shingles per text."""
    bands: UInt32s
    """(BANDS, texts): the key of every band of every text."""
    codes: UInt64s
    """(pairs,), ascending: smaller text number << 32 | greater one; every candidate pair."""
    shared: UInt32s
    """(pairs,): shingles in common."""

    def __len__(self) -> int:
        return len(self.high)

    def similar(self, minimum: float) -> tuple[Integers, Integers, npt.NDArray[np.float64]]:
        """Return text numbers and Jaccard similarity of the pairs that reach ``minimum``."""
        first, second = (self.codes >> _HALF).astype(np.int64), (self.codes & _LOW).astype(np.int64)
        shared = self.shared.astype(np.int64)
        similarity = shared / (self.sizes[first].astype(np.int64) + self.sizes[second] - shared)
        enough = similarity >= minimum
        return first[enough], second[enough], similarity[enough]


def empty_index() -> NearIndex:
    """Return the index of no texts."""
    none64, none32 = np.empty(0, np.uint64), np.empty(0, np.uint32)
    return NearIndex(none64, none64, none32, np.empty((BANDS, 0), np.uint32), none64, none32)


def grow(index: NearIndex, keys: pl.Series) -> tuple[NearIndex, Integers]:
    """Return the index of exactly the texts ``keys``, and the number of each text in it.

    Only texts and pairs that are not in ``index`` are sketched and compared. Texts that are not in ``keys``
    leave the index. Equal texts have the same number.
    """
    high, low = _digests(keys.to_list())
    order = np.lexsort((low, high))
    high, low = high[order], low[order]
    fresh = np.ones(len(order), np.bool_)
    fresh[1:] = (high[1:] != high[:-1]) | (low[1:] != low[:-1])
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(fresh) - 1
    positions = order[fresh]
    high, low = high[fresh], low[fresh]

    moved = _places(index, high, low)
    stays = moved >= 0
    old_texts = np.zeros(len(high), np.bool_)
    old_texts[moved[stays]] = True
    new = np.flatnonzero(~old_texts)
    sets = shingle_sets(keys.gather(positions[new]))
    sizes = np.empty(len(high), np.uint32)
    sizes[moved[stays]], sizes[new] = index.sizes[stays], sets.sizes
    bands = np.empty((BANDS, len(high)), np.uint32)
    bands[:, moved[stays]], bands[:, new] = index.bands[:, stays], band_keys(sets)
    codes = _candidates(bands, sizes)
    shared = _shared(index, moved, codes, new, sets, keys, positions)
    return NearIndex(high, low, sizes, bands, codes, shared), numbers


def numbers_in(index: NearIndex, keys: pl.Series) -> Integers:
    """Return the number of each of ``keys`` in ``index``, or -1: (keys,)."""
    high, low = _digests(keys.to_list())
    place = np.minimum(np.searchsorted(index.high, high), max(len(index) - 1, 0))
    if not len(index):
        return np.full(len(high), -1, np.int64)
    return np.where((index.high[place] == high) & (index.low[place] == low), place, -1)


def sharing_bands(index: NearIndex, keys: UInt32s) -> tuple[Integers, Integers]:
    """Return the distinct pairs (query, text number) of queries and texts of ``index`` that share a band.
    ``keys`` are the queries' bands: (BANDS, queries)."""
    found: list[UInt64s] = [np.empty(0, np.uint64)]
    for band, wanted in zip(_ordered(index.bands), keys, strict=True):
        held = band >> _HALF
        starts = np.searchsorted(held, wanted, side="left")
        counts = np.searchsorted(held, wanted, side="right") - starts
        query = np.repeat(np.arange(len(wanted), dtype=np.uint64), counts)
        found.append((query << _HALF) | (band[ranges(starts, counts)] & _LOW))
    pairs = distinct(np.concatenate(found))
    return (pairs >> _HALF).astype(np.int64), (pairs & _LOW).astype(np.int64)


def _digests(texts: Sequence[str]) -> tuple[UInt64s, UInt64s]:
    digests = b"".join([hashlib.sha256(text.encode()).digest()[:16] for text in texts])
    both = np.frombuffer(digests, dtype=">u8").astype(np.uint64).reshape(-1, 2)
    return np.ascontiguousarray(both[:, 0]), np.ascontiguousarray(both[:, 1])


def _places(index: NearIndex, high: UInt64s, low: UInt64s) -> Integers:
    """Return, for every text of ``index``, its number among the texts (``high``, ``low``), or -1."""
    # Two different texts with equal first halves do not occur in practice; one of them would count as gone.
    place = np.searchsorted(high, index.high)
    inside = np.minimum(place, max(len(high) - 1, 0))
    if not len(high):
        return np.full(len(index), -1, np.int64)
    same = (high[inside] == index.high) & (low[inside] == index.low)
    return np.where(same, inside, -1)


def _ordered(bands: UInt32s) -> Iterator[UInt64s]:
    """Yield, for each band, key << 32 | text number of every text, ascending."""
    numbers = np.arange(bands.shape[1], dtype=np.uint64)
    for keys in bands:
        yield np.sort((keys.astype(np.uint64) << _HALF) | numbers)


def _candidates(bands: UInt32s, sizes: UInt32s) -> UInt64s:
    """Return the codes of all pairs worth comparing, ascending."""
    merged, waiting, count = np.empty(0, np.uint64), list[UInt64s](), 0
    for band in _ordered(bands):
        for codes in _bucket_pairs(band):
            waiting.append(codes)
            count += len(codes)
        if count > _MERGE_CODES:
            merged, waiting, count = distinct(np.concatenate([merged, *waiting])), [], 0
    merged = distinct(np.concatenate([merged, *waiting]))
    one, other = sizes[(merged >> _HALF).astype(np.int64)], sizes[(merged & _LOW).astype(np.int64)]
    return merged[np.minimum(one, other) >= FLOOR * np.maximum(one, other)]


def _bucket_pairs(band: UInt64s) -> list[UInt64s]:
    keys, owners = band >> _HALF, band & _LOW
    borders = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    starts = np.concatenate([[0], borders]).astype(np.int64)
    ends = np.concatenate([borders, [len(keys)]]).astype(np.int64)
    lengths = ends - starts
    pairs: list[UInt64s] = []
    small = (lengths > 1) & (lengths <= FULL_BUCKET)
    at = ranges(starts[small], lengths[small])
    end = np.repeat(ends[small], lengths[small])
    for distance in range(1, FULL_BUCKET):
        inside = at + distance < end
        at, end = at[inside], end[inside]
        if not len(at):
            break
        pairs.append((owners[at] << _HALF) | owners[at + distance])
    large = lengths > FULL_BUCKET
    for pivot in range(PIVOTS if large.any() else 0):
        others = lengths[large] - pivot - 1
        first = np.repeat(owners[starts[large] + pivot], others)
        pairs.append((first << _HALF) | owners[ranges(starts[large] + pivot + 1, others)])
    return pairs


def ranges(starts: Integers, lengths: Integers) -> Integers:
    """Return ``starts[0], starts[0] + 1, …`` for ``lengths[0]`` numbers, then the same for the next."""
    if not len(starts):
        return np.empty(0, np.int64)
    before = np.cumsum(lengths) - lengths
    return np.arange(int(lengths.sum())) + np.repeat(starts - before, lengths)


def _shared(
    index: NearIndex,
    moved: Integers,
    codes: UInt64s,
    new: Integers,
    sets: ShingleSets,
    keys: pl.Series,
    positions: Integers,
) -> UInt32s:
    first, second = (
        moved[(index.codes >> _HALF).astype(np.int64)],
        moved[(index.codes & _LOW).astype(np.int64)],
    )
    stays = (first >= 0) & (second >= 0)
    old = (first[stays].astype(np.uint64) << _HALF) | second[stays].astype(np.uint64)
    place = np.searchsorted(old, codes)
    compared = np.zeros(len(codes), np.bool_)
    inside = place < len(old)
    compared[inside] = old[place[inside]] == codes[inside]
    shared = np.empty(len(codes), np.uint32)
    shared[compared] = index.shared[stays][place[compared]]

    unknown = codes[~compared]
    one, other = (unknown >> _HALF).astype(np.int64), (unknown & _LOW).astype(np.int64)
    row_of = np.full(len(positions), -1, np.int64)
    row_of[new] = np.arange(len(new))
    touched = distinct(np.concatenate([unknown >> _HALF, unknown & _LOW])).astype(np.int64)
    missing = touched[row_of[touched] < 0]
    row_of[missing] = len(new) + np.arange(len(missing))
    sets = sets.joined(shingle_sets(keys.gather(positions[missing])))
    shared[~compared] = shared_counts(sets, row_of[one], row_of[other])
    return shared


def shared_counts(sets: ShingleSets, one: Integers, other: Integers) -> UInt32s:
    """Return how many shingles the sets ``one[i]`` and ``other[i]`` have in common: (pairs,)."""
    from scipy.sparse import csr_array

    # Each set is a row of a huge sparse matrix. The element-wise product of two rows is their intersection.
    shape = (len(sets.sizes), 1 << HASH_BITS)
    rows: Any = csr_array(
        (np.ones(len(sets.values), np.bool_), sets.values.view(np.int64), sets.offsets), shape
    )
    counts = np.empty(len(one), np.uint32)
    total = np.cumsum(sets.sizes[one] + sets.sizes[other])
    start = 0
    while start < len(one):
        begun = total[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(total, begun + _BATCH_SHINGLES)))
        both = rows[one[start:stop]].multiply(rows[other[start:stop]])
        counts[start:stop] = np.diff(both.indptr)
        start = stop
    return counts
