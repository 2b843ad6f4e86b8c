from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st
from tunewheel_curate.similarity.pairs import (
    SimilarPair,
    SimilarPairs,
    components,
    pairs_among,
    similar_pairs,
)
from tunewheel_testing.shingles import jaccard, shingles

WORDS = [f"word{number}" for number in range(60)]


def test_shingles_of_short_texts_are_the_texts() -> None:
    assert shingles("Hello") == {"hello"}
    assert shingles("?!") == {"?!"}
    assert shingles("One two, THREE") == {"one two", "two three"}


def test_every_similar_pair_is_found_and_no_other() -> None:
    rng = random.Random(3)
    texts = [" ".join(rng.choices(WORDS, k=20)) for _ in range(200)]
    for number in range(100):
        words = texts[number].split()
        words[rng.randrange(20)] = "changed"
        texts.append(" ".join(words))
    sets = [shingles(text) for text in texts]
    wanted = {
        (i, j)
        for i in range(len(texts))
        for j in range(i + 1, len(texts))
        if jaccard(sets[i], sets[j]) >= 0.8
    }
    found = similar_pairs(texts, minimum=0.8)
    assert len(wanted) > 50
    assert {(pair.first, pair.second) for pair in found} == wanted
    assert not similar_pairs(["alone"], minimum=0.8)
    assert not similar_pairs([], minimum=0.8)


@given(st.permutations(range(12)))
def test_pairs_do_not_depend_on_order(order: list[int]) -> None:
    texts = [" ".join(WORDS[number // 2 : number // 2 + 15]) + f" {number}" for number in range(12)]
    plain = {frozenset((p.first, p.second)) for p in similar_pairs(texts, minimum=0.6)}
    shuffled = similar_pairs([texts[number] for number in order], minimum=0.6)
    assert {frozenset((order[p.first], order[p.second])) for p in shuffled} == plain


def test_components_join_what_edges_connect() -> None:
    assert components(5, [(3, 4), (1, 3)]) == [0, 1, 2, 1, 1]


def test_pairs_follow_their_members() -> None:
    pairs = [SimilarPair(0, 2, 0.9), SimilarPair(1, 2, 0.8)]
    assert list(pairs_among(pairs, ["a", "b", "c"], ["c", "a"])) == [SimilarPair(0, 1, 0.9)]
    assert not pairs_among([], ["a"], ["a"])


def test_equal_texts_are_pairs_of_the_first() -> None:
    pairs = similar_pairs(
        ["the same text again", "another one altogether", "The same text  again"], minimum=0.8
    )
    assert list(pairs) == [SimilarPair(0, 2, 1.0)]


def test_the_hashed_similarity_is_the_true_one() -> None:
    texts = [
        "Größe 44, bitte!",
        "größe 44 bitte",
        "größe 45 bitte",
        "?!",
        "one",
        "one two",
        "שלום עולם 👋 ok",
    ]
    for pair in similar_pairs(texts, minimum=0.5):
        assert pair.similarity == jaccard(shingles(texts[pair.first]), shingles(texts[pair.second]))
    assert (0, 1) in {(pair.first, pair.second) for pair in similar_pairs(texts, minimum=0.9)}


def test_pairs_are_a_sequence() -> None:
    pairs = SimilarPairs.of([SimilarPair(2, 1, 0.7), SimilarPair(0, 3, 0.9)])
    assert pairs[0] == SimilarPair(0, 3, 0.9)
    assert list(pairs[1:]) == [SimilarPair(1, 2, 0.7)]
    assert list(pairs.at_least(0.8)) == [SimilarPair(0, 3, 0.9)]
