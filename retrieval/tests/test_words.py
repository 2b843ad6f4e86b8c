from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_retrieval.words import K1, B, Postings, WordSearch, words_of

WORDS = st.lists(st.sampled_from(["bell", "horn", "brake", "lockers", "KubePodCrash"]), max_size=6)
TEXTS = st.lists(WORDS.map(" ".join), max_size=6)


def test_words_are_lower_case_with_the_parts_of_names_and_the_pairs_of_unspaced_scripts() -> None:
    assert words_of("The KubePodCrash, a bell!") == ["the", "kubepodcrash", "kube", "pod", "crash", "bell"]
    assert words_of("自転車のベル") == ["自転車のベル", "自転", "転車", "車の", "のベ", "ベル"]
    assert words_of("Überprüfen Sie") == ["überprüfen", "sie"]


def test_scores_are_bm25() -> None:
    texts = ["bell bell horn", "bell brake", "brake brake brake"]
    search = WordSearch(Postings.of(texts))
    mean = 8 / 3
    idf = math.log(1 + (3 - 2 + 0.5) / (2 + 0.5))

    def score(count: int, length: int) -> float:
        return idf * count / (count + K1 * (1 - B + B * length / mean))

    assert search.best("bell", 9) == sorted([0, 1], key=lambda row: -score([2, 1][row], [3, 2][row]))
    assert search.best("brake", 9) == [2, 1]
    assert search.best("lamp", 9) == []
    assert search.best("brake bell", 1) == [1]


def test_equal_scores_come_by_row() -> None:
    search = WordSearch(Postings.of(["a bell"] * 5))
    assert search.best("bell", 3) == [0, 1, 2]


@settings(max_examples=150)
@given(before=TEXTS, kept=st.sets(st.integers(0, 5)), new=TEXTS, seed=st.randoms())
def test_merging_gives_what_building_anew_gives(before, kept, new, seed) -> None:
    """Whatever is dropped, kept in another place, or added."""
    staying = [row for row in range(len(before)) if row in kept]
    places = list(range(len(staying) + len(new)))
    seed.shuffle(places)
    pairs = list(zip(staying, places, strict=False))
    rows = places[len(staying) :]
    texts = [""] * len(places)
    for old, at in pairs:
        texts[at] = before[old]
    for at, text in zip(rows, new, strict=True):
        texts[at] = text
    merged = Postings.merged(Postings.of(before), pairs, rows, new)
    assert merged.to_bytes() == Postings.of(texts).to_bytes()
    assert Postings.from_bytes(merged.to_bytes()).to_bytes() == merged.to_bytes()


@pytest.mark.parametrize("data", [b"", b"x" * 100, Postings.of(["a bell"]).to_bytes()[:-3]])
def test_what_is_no_file_of_postings_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="postings"):
        Postings.from_bytes(data)
