"""Every text that holds an item is found, and nothing else: compared with a search through all of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_curate.similarity import containment
from tunewheel_curate.similarity.containment import (
    CONTAINED,
    LEAST_WORDS,
    LONG_WORDS,
    MOST_ITEMS,
    _wanted,
    holding,
)
from tunewheel_testing.shingles import shingles

WORDS = st.sampled_from([f"w{number}" for number in range(12)])
TEXTS = st.lists(st.lists(WORDS, max_size=40).map(" ".join), min_size=1, max_size=12)


def found(texts: list[str], items: list[str]) -> set[tuple[int, int]]:
    pairs = holding(pl.Series(texts, dtype=pl.String), pl.Series(items, dtype=pl.String))
    return {(int(text), int(item)) for text, item in zip(*pairs, strict=True)}


def holds(text: str, item: str) -> bool:
    count = len(item.split())
    if count < LEAST_WORDS:
        return False
    if count < LONG_WORDS:
        return f" {item} " in f" {text} "
    return len(shingles(item) & shingles(text)) >= CONTAINED * len(shingles(item))


@settings(max_examples=150)
@given(texts=TEXTS, parts=st.lists(st.tuples(st.integers(0), st.integers(0, 30), st.integers(0, 30))))
def test_what_holds_an_item_is_found_and_nothing_else(texts, parts) -> None:
    pieces = [" ".join(texts[which % len(texts)].split()[at : at + long]) for which, at, long in parts]
    items = [*texts, *pieces]
    wanted = {
        (row, number)
        for row, text in enumerate(texts)
        for number, item in enumerate(items)
        if holds(text, item)
    }
    assert found(texts, items) == wanted


@pytest.mark.parametrize(
    ("text", "item", "held"),
    [
        ("q how do i reset it a press the button", "how do i reset it", True),
        ("how do i press it then reset it do i", "how do i reset it", False),
        ("we ask where is my card and so on", "where is my", False),
        (" ".join(f"w{n}" for n in range(60)), " ".join(f"w{n}" for n in (*range(20), 99)), True),
        (" ".join(f"w{n}" for n in range(0, 60, 2)), " ".join(f"w{n}" for n in range(20)), False),
        ("", "how do i reset it", False),
    ],
)
def test_short_items_stand_in_one_piece_and_long_ones_nearly(text: str, item: str, held: bool) -> None:
    assert found(["something else is told in here", text], ["nobody asks for this one", item]) == (
        {(1, 1)} if held else set()
    )


def test_an_everyday_beginning_leads_to_a_bounded_number_of_items() -> None:
    items = [f"please help me with the thing called t{number}" for number in range(500)]
    texts = [f"{item} because it is broken" for item in items]
    assert found(texts, items) == {(number, number) for number in range(500)}
    alike = [f"{text} {number}" for number, text in enumerate(items)]
    wanted = _wanted(pl.Series(alike), np.ones(500, np.bool_))
    assert np.unique(wanted.pairs, return_counts=True)[1].max() <= MOST_ITEMS


@pytest.mark.parametrize("count", [1, 40, 3_000])
@pytest.mark.parametrize("most_bits", [6, 22])
def test_the_table_of_pairs_is_as_large_as_they_need_and_decides_nothing(
    count: int, most_bits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(containment, "_MOST_SLOT_BITS", most_bits)
    items = [f"how do i reset the device number t{number}" for number in range(count)]
    texts = [f"page {number} says {item} and then more" for number, item in enumerate(items)]
    assert found(texts, items) == {(number, number) for number in range(count)}
    wanted = _wanted(pl.Series(items), np.ones(count, np.bool_))
    assert len(wanted.slots) - 1 <= min(32 * len(wanted.pairs), 1 << most_bits)


def test_nothing_is_found_where_there_is_nothing() -> None:
    assert found([], ["how do i reset it"]) == found(["how do i reset it"], []) == found([], []) == set()
