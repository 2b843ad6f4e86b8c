"""The index grown in any order is the index built at once, and a flood of alike texts stays affordable."""

from __future__ import annotations

import random
from dataclasses import fields

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_curate.similarity import near_index
from tunewheel_curate.similarity.near_index import FULL_BUCKET, NearIndex, empty_index, grow, shared_counts
from tunewheel_curate.similarity.pairs import near_pairs
from tunewheel_curate.similarity.shingling import shingle_sets
from tunewheel_testing.shingles import jaccard, shingles

RNG = random.Random(5)
WORDS = [f"word{number}" for number in range(40)]
BASES = [RNG.choices(WORDS, k=15) for _ in range(12)]
TEXTS = sorted({" ".join([*base[:cut], f"x{number}", *base[cut + 1 :]])
                for base in BASES for number in range(5) for cut in (3, 9)})  # fmt: skip
FLOOD = [
    f"node {number} in rack seven is down again please restart it soon" for number in range(FULL_BUCKET + 9)
]


def texts_of(keys: list[str]) -> pl.Series:
    return pl.Series(keys, dtype=pl.String)


def assert_same(one: NearIndex, other: NearIndex) -> None:
    for field in fields(NearIndex):
        assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name


@settings(max_examples=25)
@given(data=st.data())
def test_whatever_it_grew_from_the_index_is_the_same(data) -> None:
    pool = TEXTS + FLOOD
    index = empty_index()
    for _ in range(data.draw(st.integers(1, 4))):
        chosen = data.draw(st.lists(st.sampled_from(pool), max_size=len(pool)))
        index, _ = grow(index, texts_of(chosen))
    final = data.draw(st.permutations(pool))[: data.draw(st.integers(0, len(pool)))]
    grown, numbers = grow(index, texts_of(final))
    scratch, scratch_numbers = grow(empty_index(), texts_of(sorted(final)))
    assert_same(grown, scratch)
    order = np.argsort(np.array(final, dtype=str), kind="stable")
    assert numbers[order].tolist() == scratch_numbers.tolist()


def test_only_new_texts_are_sketched_and_only_new_pairs_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    index, _ = grow(empty_index(), texts_of(TEXTS))
    sketched: list[int] = []
    compared: list[int] = []
    sketch, compare = near_index.band_keys, near_index.shared_counts
    monkeypatch.setattr(
        near_index, "band_keys", lambda sets: (sketched.append(len(sets.sizes)), sketch(sets))[1]
    )
    monkeypatch.setattr(
        near_index, "shared_counts", lambda sets, a, b: (compared.append(len(a)), compare(sets, a, b))[1]
    )
    grow(index, texts_of([*TEXTS, "something that resembles nothing else that was ever said here"]))
    grow(index, texts_of(TEXTS[5:]))
    assert sketched == [1, 0]
    assert compared == [0, 0]


def test_nothing_at_all_is_an_index_too() -> None:
    index, numbers = grow(empty_index(), texts_of([]))
    assert (len(index), len(numbers)) == (0, 0)
    assert_same(index, empty_index())
    filled, _ = grow(empty_index(), texts_of(TEXTS))
    assert_same(grow(filled, texts_of([]))[0], empty_index())


def test_shared_counts_are_those_of_the_sets() -> None:
    sets = shingle_sets(texts_of(TEXTS))
    plain = [shingles(text) for text in TEXTS]
    one, other = np.arange(len(TEXTS) - 1), np.arange(1, len(TEXTS))
    wanted = [len(plain[a] & plain[b]) for a, b in zip(one, other, strict=True)]
    assert shared_counts(sets, one, other).tolist() == wanted


def test_a_flood_is_one_cluster_at_linear_cost() -> None:
    flood = [f"node {number} in rack seven is down again please restart it soon" for number in range(20_000)]
    pairs, index = near_pairs(texts_of(flood), minimum=0.6, earlier=empty_index())
    assert len(index.codes) <= 32 * near_index.PIVOTS * len(flood)
    joined = set(pairs.first.tolist()) | set(pairs.second.tolist())
    assert len(joined) == len(flood)


def test_similarity_is_the_jaccard_of_the_shingles() -> None:
    pairs, _ = near_pairs(texts_of(TEXTS), minimum=0.5, earlier=empty_index())
    assert len(pairs) > 50
    for pair in pairs:
        assert pair.similarity == jaccard(shingles(TEXTS[pair.first]), shingles(TEXTS[pair.second]))
