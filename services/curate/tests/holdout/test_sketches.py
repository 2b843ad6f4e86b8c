from __future__ import annotations

import random

import polars as pl
import pytest
from tunewheel_curate.holdout.sketches import SKETCH_BITS, likeness, sketches_of
from tunewheel_testing.shingles import jaccard, shingles

SECRET = b"s" * 32
WORDS = [f"word{number}" for number in range(60)]


@pytest.mark.parametrize("shared", [58, 50, 40, 30])
def test_the_share_of_equal_bits_estimates_the_similarity(shared: int) -> None:
    one, other = " ".join(WORDS), " ".join(WORDS[:shared] + [f"other{n}" for n in range(60 - shared)])
    (found,) = likeness(pl.Series([other]), sketches_of(pl.Series([one]), SECRET), SECRET, least=0.3)
    assert found == pytest.approx(jaccard(shingles(one), shingles(other)), abs=0.08)


def test_unlike_texts_are_ruled_out_and_one_without_words_is_no_error() -> None:
    rng = random.Random(3)
    held = pl.Series([" ".join(rng.sample(WORDS, 12)) for _ in range(300)])
    new = pl.Series(["altogether different words of nobody", "?!", held[7] + " thanks"])
    found = likeness(new, sketches_of(held, SECRET), SECRET, least=0.5)
    assert (found >= 0.5).tolist() == [False, False, True]
    assert likeness(new, [], SECRET, least=0.5).tolist() == [0, 0, 0]
    assert len(likeness(pl.Series([], dtype=pl.String), sketches_of(held, SECRET), SECRET, least=0.5)) == 0


def test_without_the_secret_a_sketch_recognises_nothing() -> None:
    asked = pl.Series(["my name is jane roe and my pump leaks since monday morning"])
    kept = sketches_of(asked, SECRET)
    assert len(kept[0]) == SKETCH_BITS // 4
    assert likeness(asked, kept, SECRET, least=0.5)[0] == 1
    for guess in (b"", b"t" * 32):
        assert likeness(asked, kept, guess, least=0.5)[0] < 0.3
