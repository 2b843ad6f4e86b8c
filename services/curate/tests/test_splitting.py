from __future__ import annotations

import polars as pl
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_curate.formatting import EXAMPLE_SCHEMA
from tunewheel_curate.similarity import SimilarPair
from tunewheel_curate.splitting import split_examples


def examples(*rows: tuple[str, str | None]) -> pl.DataFrame:
    """Return examples of (group, label)."""
    made = [
        {"example_id": f"ex-{number:04}", "messages": [], "label": label, "group": group, "trust": "expert",
         "record_ids": [f"rec-{number}"]}
        for number, (group, label) in enumerate(rows)
    ]  # fmt: skip
    return pl.DataFrame(made, schema=EXAMPLE_SCHEMA)


def many(count: int) -> list[tuple[str, str]]:
    return [(f"g{number // 2}", "bell" if number % 3 else "horn") for number in range(count)]


def test_the_fraction_is_met_and_no_group_straddles() -> None:
    split = split_examples(examples(*many(2000)), [], holdout=0.2)
    assert 0.16 < split.holdout.height / 2000 < 0.24
    assert not set(split.train["group"]) & set(split.holdout["group"])
    assert split.train.height + split.holdout.height == 2000


def test_a_newcomer_moves_nobody() -> None:
    before = split_examples(examples(*many(400)), [], holdout=0.2)
    after = split_examples(examples(*many(440)), [], holdout=0.2)
    assert set(before.holdout["group"]) <= set(after.holdout["group"])
    assert set(before.train["group"]) <= set(after.train["group"])


def test_similar_texts_stay_on_one_side() -> None:
    frame = examples(*[(f"g{number}", "bell") for number in range(60)])
    pairs = [SimilarPair(number, number + 1, 0.7) for number in range(0, 60, 2)]
    split = split_examples(frame, pairs, holdout=0.3)
    held = set(split.holdout["group"])
    assert held
    assert all((f"g{n}" in held) == (f"g{n + 1}" in held) for n in range(0, 60, 2))


@given(st.lists(st.tuples(st.sampled_from("abcdefghij"), st.sampled_from(["x", "y", "z"])), min_size=2))
def test_every_label_is_trained_on_and_held_out_where_it_can_be(rows: list[tuple[str, str]]) -> None:
    split = split_examples(examples(*rows), [], holdout=0.2)
    assert set(split.train["label"]) == {label for _, label in rows}
    assert not set(split.train["group"]) & set(split.holdout["group"])


def test_rare_labels_reach_the_holdout() -> None:
    rows = [*many(300), ("r1", "rare"), ("r2", "rare"), ("s1", "single")]
    split = split_examples(examples(*rows), [], holdout=0.1)
    assert "rare" in set(split.holdout["label"])
    assert "single" in set(split.train["label"])


def test_without_labels_something_is_held_out() -> None:
    rows = [(f"g{number}", None) for number in range(4)]
    assert split_examples(examples(*rows), [], holdout=0.05).holdout.height == 1


def test_one_group_alone_holds_nothing_out() -> None:
    assert split_examples(examples(("g", "x"), ("g", "x")), [], holdout=0.2).holdout.is_empty()
