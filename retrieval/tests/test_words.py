from __future__ import annotations

import math
import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_retrieval.words import K1, B, Postings, WordSearch, best_of, marks_of, words_of

WORDS = st.lists(st.sampled_from(["bell", "horn", "brake", "lockers", "KubePodCrash"]), max_size=6)
TEXTS = st.lists(WORDS.map(" ".join), max_size=6)


def test_words_are_lower_case_with_the_parts_of_names_and_the_pairs_of_unspaced_scripts() -> None:
    assert words_of("The KubePodCrash, a bell!") == ["the", "kubepodcrash", "kube", "pod", "crash", "bell"]
    assert words_of("自転車のベル") == ["自転車のベル", "自転", "転車", "車の", "のベ", "ベル"]
    assert words_of("Überprüfen Sie") == ["überprüfen", "sie"]


def plain_bm25(texts: list[str], question: str) -> dict[int, float]:
    """Return the score of each row that shares a word with ``question``, as the formula is written."""
    rows = [words_of(text) for text in texts]
    mean = max(1.0, sum(map(len, rows)) / max(1, len(rows)))
    scores: dict[int, float] = {}
    for word in words_of(question):
        frequency = sum(word in row for row in rows)
        idf = math.log(1 + (len(rows) - frequency + 0.5) / (frequency + 0.5))
        for at, row in enumerate(rows):
            if count := row.count(word):
                norm = K1 * (1 - B + B * len(row) / mean)
                scores[at] = scores.get(at, 0.0) + idf * count / (count + norm)
    return scores


def assert_ranked_by_the_formula(texts: list[str], question: str, depth: int) -> None:
    """Scores that differ by less than numbers of 32 bits tell apart may change places."""
    scores = plain_bm25(texts, question)
    found = best_of(WordSearch(Postings.of(texts)).scores(question), depth)
    assert len(set(found)) == len(found)
    expected = sorted(scores.values(), reverse=True)[:depth]
    assert [scores[row] for row in found] == pytest.approx(expected, abs=1e-5)
    assert all(one < other for one, other in pairwise(found) if scores[one] == scores[other])


@settings(max_examples=150)
@given(texts=TEXTS, question=WORDS.map(" ".join), depth=st.integers(1, 7))
def test_passages_are_ranked_as_the_formula_says(texts, question, depth) -> None:
    """Words that the question repeats count each time."""
    assert_ranked_by_the_formula(texts, question, depth)


def test_many_passages_are_ranked_as_the_formula_says() -> None:
    draw = random.Random(0)
    words, weights = [f"word{n}" for n in range(300)], [1 / rank for rank in range(1, 301)]
    texts = [" ".join(draw.choices(words, weights, k=draw.randint(5, 40))) for _ in range(400)]
    for _ in range(10):
        assert_ranked_by_the_formula(texts, " ".join(draw.choices(words, weights, k=12)), 50)


@given(
    scores=st.lists(st.integers(-3, 9).map(float) | st.floats(-1, 1, width=32), max_size=30),
    depth=st.integers(1, 31),
)
def test_the_best_scores_above_zero_come_first_and_ties_by_row(scores, depth) -> None:
    expected = sorted((row for row, score in enumerate(scores) if score > 0), key=lambda row: -scores[row])
    assert best_of(np.array(scores, np.float32), depth) == expected[:depth]


@pytest.mark.parametrize(
    ("text", "question", "marked"),
    [
        ("A refund takes five days.", "How long does a REFUND take?", ["refund"]),
        ("Open the KubePodCrash page.", "a pod crash", ["KubePodCrash"]),
        ("退款 需要 五天", "退款", ["退款"]),
        ("Nothing of that.", "bell", []),
        ("bell, Bell", "bell", ["bell", "Bell"]),
    ],
)
def test_the_words_of_a_question_are_marked_in_a_text(text: str, question: str, marked: list[str]) -> None:
    assert [text[begin:end] for begin, end in marks_of(text, question)] == marked


def test_equal_scores_come_by_row() -> None:
    search = WordSearch(Postings.of(["a bell"] * 5))
    assert best_of(search.scores("bell"), 3) == [0, 1, 2]


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
