"""Finds texts that hold another text ("item"): a short item word for word, a long item approximately.

Containment is the share of an item's word pairs that the other text has too (Broder 1997, "On the resemblance
and containment of documents"). Jaccard similarity would miss a question in the middle of a long page. An item
of fewer than ``LONG_WORDS`` words must occur in one piece, since its few everyday word pairs occur in any
long page. An item of fewer than ``LEAST_WORDS`` words is not searched.

A text that holds an item lacks few of its word pairs. So it has most of any subset of them. The rarest pairs
are chosen as the subset, and only texts that have enough of them are compared with the item (prefix
filtering: Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search").
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from tunewheel_curate.similarity.near_index import ranges, shared_counts
from tunewheel_curate.similarity.shingling import HASH_BITS, Integers, ShingleSets, UInt64s, distinct

LEAST_WORDS = 4
LONG_WORDS = 13
CONTAINED = 0.8
MOST_ITEMS = 256
"""The most items that one word pair leads to. Among very many similar items, it does not find the others."""
FEW_ITEMS = 32
"""A word pair in more items says little about each. It is chosen only if there are not enough rarer ones."""

_CHOSEN = 0.5
"""The share of an item's word pairs that are chosen. A larger share leaves fewer texts to compare."""
_ROWS_AT_ONCE = 1 << 10
_SPARE_BITS = 4
"""Each pair has 16 to 32 slots, up to the most slots there are, so few pairs of a text fall into the slot of
another pair."""
_MOST_SLOT_BITS = 22
_LEFT, _RIGHT = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_MASK, _SHIFT = np.uint64((1 << HASH_BITS) - 1), np.uint64(HASH_BITS)


@dataclass(frozen=True)
class _Wanted:
    """The items' chosen word pairs, ascending, and the item of each pair."""

    texts: pl.Series
    short: npt.NDArray[np.bool_]
    sets: ShingleSets
    pairs: UInt64s
    items: Integers
    enough: Integers
    """(items,): how many of its chosen word pairs a text must have to be compared."""

    @property
    def slot_bits(self) -> int:
        return min(len(self.pairs).bit_length() + _SPARE_BITS, _MOST_SLOT_BITS)

    @cached_property
    def slots(self) -> npt.NDArray[np.int32]:
        """The position in ``pairs`` where each value of the first bits begins. It saves a search per pair."""
        counts = np.bincount(self.slot(self.pairs) + 1, minlength=(1 << self.slot_bits) + 1)
        return np.cumsum(counts, dtype=np.int32)

    def slot(self, pairs: UInt64s) -> Integers:
        return (pairs >> np.uint64(HASH_BITS - self.slot_bits)).astype(np.int64)


def holding(texts: pl.Series, items: pl.Series) -> tuple[Integers, Integers]:
    """Return positions (text, item), ordered, where the text holds the item. A text holds itself.

    Both are as ``only_words`` returns them.
    """
    words = (items.str.count_matches(" ", literal=True) + 1).to_numpy()
    asked = np.flatnonzero(words >= LEAST_WORDS)
    nothing = np.empty(0, np.int64)
    if not len(asked):
        return nothing, nothing
    wanted = _wanted(items.gather(asked), words[asked] < LONG_WORDS)
    rows, found = [nothing], [nothing]
    for start in range(0, len(texts), _ROWS_AT_ONCE):
        row, item = _held(texts.slice(start, _ROWS_AT_ONCE), wanted)
        rows.append(row + start)
        found.append(asked[item])
    return np.concatenate(rows), np.concatenate(found)


def only_words(keys: pl.Series) -> pl.Series:
    """Return the words of ``keys``, texts as ``comparison_key`` returns them, with single blanks between."""
    return keys.str.replace_all(r"[^\w ]\W*| \W+", " ").str.strip_chars()  # single blanks stay as they are


def _wanted(items: pl.Series, short: npt.NDArray[np.bool_]) -> _Wanted:
    rows, pairs = _word_pairs(items)
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    order = np.lexsort((pairs, rows))
    fresh = _begins(rows[order]) | _begins(pairs[order])
    rows, pairs, place = rows[order][fresh], pairs[order][fresh], place[order][fresh]
    sizes = np.bincount(rows, minlength=len(items))
    ends = np.cumsum(sizes)
    sets = ShingleSets(pairs, np.append(0, ends))
    lacking = np.where(short, 0, sizes - np.ceil(CONTAINED * sizes).astype(np.int64))
    often = _occurrences(pairs)
    # The rarest first; of equally rare ones the first in the item, since hashes differ between machines.
    order = np.lexsort((place, often, rows))
    pairs, often = pairs[order], often[order]
    rank = np.arange(len(rows)) - (ends - sizes)[rows]
    # With fewer pairs a text could hold the item and have none of them. More pairs save comparisons.
    chosen = (rank <= lacking[rows]) | ((rank < _CHOSEN * sizes[rows]) & (often <= FEW_ITEMS))
    enough = np.bincount(rows[chosen], minlength=len(items)) - lacking
    order = np.argsort(pairs[chosen], kind="stable")
    pairs, owners = pairs[chosen][order], rows[chosen][order]
    few = np.arange(len(pairs)) - np.searchsorted(pairs, pairs) < MOST_ITEMS
    return _Wanted(items, short, sets, pairs[few], owners[few], enough)


def _occurrences(values: UInt64s) -> Integers:
    """Return for each of ``values`` how often it occurs in ``values``."""
    order = np.argsort(values)
    number = np.cumsum(_begins(values[order])) - 1
    occurrences = np.empty(len(values), np.int64)
    occurrences[order] = np.bincount(number)[number]
    return occurrences


def _begins(ordered: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return for each value in ``ordered`` whether it differs from the one before it."""
    begins = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=begins[1:])
    return begins


def _held(texts: pl.Series, wanted: _Wanted) -> tuple[Integers, Integers]:
    """Return positions (text, item) where one of ``texts`` holds an item, ordered."""
    rows, pairs = _word_pairs(texts)
    row, item = _candidates(rows, pairs, wanted)
    holds, short = np.zeros(len(row), np.bool_), wanted.short[item]
    said, asked = texts.gather(row[short]).to_list(), wanted.texts.gather(item[short]).to_list()
    holds[short] = [f" {one} " in f" {other} " for one, other in zip(asked, said, strict=True)]
    if not short.all():
        sets, one = _few_sets(wanted.sets, item[~short])
        sizes = sets.sizes[one]
        both = sets.joined(_sets_of(rows, pairs, len(texts)))
        shared = shared_counts(both, one, len(sets.sizes) + row[~short])
        holds[~short] = shared >= CONTAINED * sizes
    return row[holds], item[holds]


def _candidates(rows: Integers, pairs: UInt64s, wanted: _Wanted) -> tuple[Integers, Integers]:
    """Return (row, item) where the text has enough of the item's chosen word pairs, ordered."""
    slots = wanted.slot(pairs)
    hit = np.flatnonzero(wanted.slots[slots + 1] > wanted.slots[slots])
    slots = slots[hit]
    starts = wanted.slots[slots].astype(np.int64)
    lengths = wanted.slots[slots + 1] - starts
    at, met = ranges(starts, lengths), np.repeat(hit, lengths)
    same = wanted.pairs[at] == pairs[met]
    codes = np.sort((rows[met[same]] << 32) | wanted.items[at[same]])
    begins = np.flatnonzero(_begins(codes))
    hits = np.diff(np.append(begins, len(codes)))
    row, item = codes[begins] >> 32, codes[begins] & 0xFFFFFFFF
    enough = hits >= wanted.enough[item]
    return row[enough], item[enough]


def _few_sets(sets: ShingleSets, positions: Integers) -> tuple[ShingleSets, Integers]:
    """Return the sets at ``positions``, each once, and where each position is in them."""
    kept, place = np.unique(positions, return_inverse=True)
    sizes = sets.sizes[kept]
    values = sets.values[ranges(sets.offsets[kept], sizes)]
    return ShingleSets(values, np.append(0, np.cumsum(sizes))), place


def _sets_of(rows: Integers, pairs: UInt64s, count: int) -> ShingleSets:
    packed = distinct((rows.astype(np.uint64) << _SHIFT) | pairs)
    sizes = np.bincount((packed >> _SHIFT).astype(np.int64), minlength=count)
    return ShingleSets(packed & _MASK, np.append(0, np.cumsum(sizes)))


def _word_pairs(texts: pl.Series) -> tuple[Integers, UInt64s]:
    """Return, for every pair of consecutive words, its row and ``HASH_BITS`` bits of its hash. The hashes
    differ between versions of polars."""
    words = texts.str.split(" ")
    rows = np.repeat(np.arange(len(texts)), words.list.len().to_numpy())
    hashes = words.explode().hash().to_numpy()
    together = rows[:-1] == rows[1:]
    pairs = (hashes[:-1] * _LEFT + hashes[1:] * _RIGHT)[together]
    return rows[:-1][together], pairs >> np.uint64(64 - HASH_BITS)
