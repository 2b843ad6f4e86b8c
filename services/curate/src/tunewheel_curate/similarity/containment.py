"""Which texts hold another text: a short one word for word, a long one nearly.

Containment is the share of a text's word pairs that another text has too (Broder 1997, "On the resemblance
and containment of documents"). Jaccard similarity does not see it: a question in the middle of a long page is
next to nothing of the page. A text of fewer than ``LONG_WORDS`` words must stand in the other in one piece,
since its few everyday word pairs occur in any long page; one of fewer than ``LEAST_WORDS`` is not looked for.

A text that holds an item lacks few of its word pairs, so it has most of any number chosen from them. The
rarest are chosen, and only texts that have enough of those are compared with the item (prefix filtering:
Bayardo, Ma and Srikant 2007, "Scaling up all pairs similarity search").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from tunewheel_curate.similarity.near_index import ranges, shared_counts
from tunewheel_curate.similarity.shingling import Integers, UInt64s, shingle_sets

LEAST_WORDS = 4
LONG_WORDS = 13
CONTAINED = 0.8
MOST_ITEMS = 256
"""Items that a word pair leads to, at most: of a flood of alike items the others are not looked for by it."""
FEW_ITEMS = 32
"""A word pair in more items tells little of any: it is chosen only where a rarer one is missing."""

_ROWS_AT_ONCE = 1 << 10
_TABLE_BITS = 22
_LEFT, _RIGHT = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xC2B2AE3D27D4EB4F)
_HALF, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)


@dataclass(frozen=True)
class _Chosen:
    """The word pairs by which items are looked for, ascending, with the item of each."""

    pairs: UInt64s
    items: Integers
    enough: Integers
    """(items,): how many of its chosen word pairs a text must have to be compared."""


def holding(texts: pl.Series, items: pl.Series) -> tuple[Integers, Integers]:
    """Return positions (text, item), ordered, where the text holds the item. A text holds itself.

    Both are as ``only_words`` returns them.
    """
    counts = (items.str.count_matches(" ", literal=True) + 1).to_numpy()
    asked = np.flatnonzero(counts >= LEAST_WORDS)
    chosen = _chosen(items.gather(asked), counts[asked])
    if not len(chosen.pairs) or not len(texts):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    slots = np.bincount(_slot(chosen.pairs) + 1, minlength=(1 << _TABLE_BITS) + 1)
    table = np.cumsum(slots, dtype=np.int32)
    found = [
        _candidates(texts.slice(start, _ROWS_AT_ONCE), start, chosen, table)
        for start in range(0, len(texts), _ROWS_AT_ONCE)
    ]
    text, item = (np.concatenate(columns) for columns in zip(*found, strict=True))
    whole = _holds(texts, text, items, asked[item], counts)
    return text[whole], asked[item[whole]]


def only_words(keys: pl.Series) -> pl.Series:
    """Return the words of ``keys``, texts as ``comparison_key`` returns them, with single blanks between."""
    return keys.str.replace_all(r"[^\w ]\W*| \W+", " ").str.strip_chars()  # single blanks stay as they are


def _chosen(items: pl.Series, words: Integers) -> _Chosen:
    owners, pairs = _word_pairs(items)
    order = np.lexsort((pairs, owners))
    owners, pairs = owners[order], pairs[order]
    fresh = np.ones(len(owners), np.bool_)
    fresh[1:] = (owners[1:] != owners[:-1]) | (pairs[1:] != pairs[:-1])
    owners, pairs = owners[fresh], pairs[fresh]
    inverse, counts = np.unique(pairs, return_inverse=True, return_counts=True)[1:]
    frequency = counts[inverse]
    order = np.lexsort((pairs, frequency, owners))
    owners, pairs, frequency = owners[order], pairs[order], frequency[order]
    sizes = np.bincount(owners, minlength=len(items))
    starts = np.cumsum(sizes) - sizes
    lacking = np.where(words < LONG_WORDS, 0, sizes - np.ceil(CONTAINED * sizes).astype(np.int64))
    rank = np.arange(len(owners)) - starts[owners]
    # So many are needed, or a text could have none of them; more of them save comparisons.
    wanted = rank <= lacking[owners]
    wanted |= (rank < sizes[owners] // 2) & (frequency <= FEW_ITEMS)
    taken = np.bincount(owners[wanted], minlength=len(items))
    order = np.lexsort((owners[wanted], pairs[wanted]))
    pairs, owners = pairs[wanted][order], owners[wanted][order]
    return _few_of_each(_Chosen(pairs, owners, taken - lacking))


def _few_of_each(chosen: _Chosen) -> _Chosen:
    first = np.searchsorted(chosen.pairs, chosen.pairs, side="left")
    few = np.arange(len(first)) - first < MOST_ITEMS
    return _Chosen(chosen.pairs[few], chosen.items[few], chosen.enough)


def _candidates(
    texts: pl.Series, start: int, chosen: _Chosen, table: npt.NDArray[np.int32]
) -> tuple[Integers, Integers]:
    """Return positions (text, item) worth a comparison. ``table`` says where in ``chosen`` those begin that
    share the first bits of a hash: to search there would take longer than all the rest."""
    rows, pairs = _word_pairs(texts)
    slots = _slot(pairs)
    known = np.flatnonzero(table[slots + 1] > table[slots])
    starts = table[slots[known]].astype(np.int64)
    lengths = table[slots[known] + 1] - starts
    at = ranges(starts, lengths)
    met = np.repeat(known, lengths)
    same = chosen.pairs[at] == pairs[met]
    rows, items = rows[met[same]], chosen.items[at[same]]
    codes = np.sort((rows.astype(np.uint64) << _HALF) | items.astype(np.uint64))
    ends = np.flatnonzero(np.append(codes[1:] != codes[:-1], True)[: len(codes)])
    hits = np.diff(ends, prepend=-1)
    row, item = (codes[ends] >> _HALF).astype(np.int64), (codes[ends] & _LOW).astype(np.int64)
    enough = hits >= chosen.enough[item]
    return row[enough] + start, item[enough]


def _holds(
    texts: pl.Series, text: Integers, items: pl.Series, item: Integers, words: Integers
) -> npt.NDArray[np.bool_]:
    """Tell of the candidates which texts hold their items."""
    holds = np.zeros(len(text), np.bool_)
    short = np.flatnonzero(words[item] < LONG_WORDS)
    said, asked = texts.gather(text[short]).to_list(), items.gather(item[short]).to_list()
    holds[short] = [f" {one} " in f" {other} " for one, other in zip(asked, said, strict=True)]
    long = np.flatnonzero(words[item] >= LONG_WORDS)
    distinct_texts, text_place = np.unique(text[long], return_inverse=True)
    distinct_items, item_place = np.unique(item[long], return_inverse=True)
    sets = shingle_sets(items.gather(distinct_items))
    sizes = sets.sizes[item_place]
    both = sets.joined(shingle_sets(texts.gather(distinct_texts)))
    holds[long] = shared_counts(both, item_place, len(distinct_items) + text_place) >= CONTAINED * sizes
    return holds


def _word_pairs(texts: pl.Series) -> tuple[Integers, UInt64s]:
    """Return the row of every two words in a row, and a hash of them that lives as long as this process."""
    words = texts.str.split(" ")
    rows = np.repeat(np.arange(len(texts)), words.list.len().to_numpy())
    hashes = words.explode().hash().to_numpy()
    together = rows[:-1] == rows[1:]
    return rows[:-1][together], (hashes[:-1] * _LEFT + hashes[1:] * _RIGHT)[together]


def _slot(pairs: UInt64s) -> Integers:
    return (pairs >> np.uint64(64 - _TABLE_BITS)).astype(np.int64)
