from __future__ import annotations

import json
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_curate.examples.formatting import EXAMPLE_SCHEMA
from tunewheel_curate.holdout.memory import Seen
from tunewheel_curate.holdout.splitting import MOST_GROUPS, conversation_pairs, split_examples
from tunewheel_curate.pipeline import build
from tunewheel_curate.similarity.pairs import SimilarPair


def examples(*rows: tuple[str, str | None]) -> pl.DataFrame:
    """Return examples of (group, label)."""
    made = [
        {"example_id": f"ex-{number:04}", "messages": [], "label": label, "group": group, "trust": "expert",
         "record_ids": [f"rec-{number}"], "format": "answer"}
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
    held, frame = set(before.holdout["group"]), examples(*many(440))
    seen = [Seen.GROUP if group in held else Seen.TRAINED for group in frame["group"][:400]]
    after = split_examples(frame, [], holdout=0.2, seen=[*seen, *[Seen.NEVER] * 40])
    assert held < set(after.holdout["group"])
    assert set(before.train["group"]) < set(after.train["group"])


def test_every_label_has_its_share_of_the_holdout() -> None:
    frame = examples(*[(f"g{number}", ("bell", "horn", "lock")[number % 20 // 9]) for number in range(200)])
    counts = dict(split_examples(frame, [], holdout=0.15).holdout["label"].value_counts().iter_rows())
    assert counts == {"bell": 14, "horn": 13, "lock": 3}


@pytest.mark.parametrize("labels", [8, 60], ids=["new labels", "one prompt for each label"])
def test_answers_to_requests_are_held_out_by_their_request_and_the_others_as_ever(labels: int) -> None:
    known = [(f"g{n}", f"known-{n % 60}") for n in range(600)]
    asked = [(f"a{n}", f"{'new' if labels == 8 else 'known'}-{n % labels}") for n in range(60)]
    other = [(f"b{n}", "new-0") for n in range(9)]
    frame = examples(*known, *asked, *other)
    requests = [*[None] * 600, *["labels-1"] * 60, *["labels-2"] * 9]
    split = split_examples(frame, [], holdout=0.1, requests=requests)
    of = [sum(group[0] == pool for group in split.holdout["group"]) for pool in "gab"]
    assert of[1:] == [20, 3]
    plain = split_examples(examples(*known), [], holdout=0.1)
    assert [name for name in split.holdout["group"] if name[0] == "g"] == plain.holdout["group"].to_list()
    assert set(split.train["label"]) == set(frame["label"])


def test_many_requests_take_no_longer_than_many_examples() -> None:
    rows = many(4_000)
    split = split_examples(examples(*rows), [], holdout=0.1, requests=[f"labels-{n}" for n in range(4_000)])
    assert split.train.height + split.holdout.height == 4_000


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


def test_what_was_held_out_stays_held_out_whatever_the_fraction() -> None:
    frame = examples(*many(400))
    before = split_examples(frame, [], holdout=0.3)
    held = set(before.holdout["example_id"])
    seen = [Seen.EXAMPLE if name in held else Seen.NEVER for name in frame["example_id"]]
    after = split_examples(frame, [], holdout=0.05, seen=seen)
    assert held <= set(after.holdout["example_id"])
    assert not held & set(after.train["example_id"])


def test_a_unit_joined_with_one_held_out_is_held_out_too() -> None:
    frame = examples(*[(f"g{number}", "bell") for number in range(40)])
    before = split_examples(frame, [], holdout=0.2)
    held, trained = before.holdout["example_id"][0], before.train["example_id"][0]
    place = {name: number for number, name in enumerate(frame["example_id"])}
    pair = SimilarPair(*sorted((place[held], place[trained])), 0.7)
    seen = [Seen.EXAMPLE if name == held else Seen.NEVER for name in frame["example_id"]]
    after = split_examples(frame, [pair], holdout=0.2, seen=seen)
    assert {held, trained} <= set(after.holdout["example_id"])


def test_a_group_that_was_held_out_is_not_trained_on() -> None:
    frame = examples(*[(f"g{number}", "bell") for number in range(20)])
    assert split_examples(frame, [], holdout=0.05).train.height >= 18
    seen = [Seen.GROUP if number < 6 else Seen.NEVER for number in range(20)]
    assert {f"g{n}" for n in range(6)} <= set(
        split_examples(frame, [], holdout=0.05, seen=seen).holdout["group"]
    )


def test_a_large_unit_trains_without_what_was_held_out_and_what_resembles_it() -> None:
    frame = examples(*[("big", "bell")] * 30, *[(f"g{n}", "bell") for n in range(20)])
    seen = [Seen.EXAMPLE if number == 3 else Seen.NEVER for number in range(50)]
    pairs = [SimilarPair(3, 7, 0.7), SimilarPair(7, 9, 0.7)]
    split = split_examples(frame, pairs, holdout=0.2, seen=seen)
    assert split.neither["example_id"].to_list() == ["ex-0003", "ex-0007"]
    assert split.train.filter(pl.col("group") == "big").height == 28
    assert split.train.height + split.holdout.height + split.neither.height == 50


def test_a_label_is_not_brought_back_to_training_from_an_earlier_holdout() -> None:
    frame = examples(("a", "rare"), *[(f"g{n}", "bell") for n in range(20)])
    seen = [Seen.EXAMPLE] + [Seen.NEVER] * 20
    split = split_examples(frame, [], holdout=0.2, seen=seen)
    assert "rare" not in set(split.train["label"])
    assert "rare" in set(split.holdout["label"])


def test_retired_examples_are_on_neither_side_and_new_ones_take_their_place() -> None:
    before = split_examples(examples(*many(400)), [], holdout=0.2)
    held, frame = sorted(set(before.holdout["group"])), examples(*many(800))
    worn = set(held[: len(held) // 2])
    seen = [
        (Seen.EXAMPLE if group in held else Seen.TRAINED) if row < 400 else Seen.NEVER
        for row, group in enumerate(frame["group"])
    ]
    retired = [group in worn for group in frame["group"]]
    after = split_examples(frame, [], holdout=0.2, seen=seen, retired=retired)
    assert set(after.neither["group"]) == worn
    assert not worn & (set(after.train["group"]) | set(after.holdout["group"]))
    assert set(held) - worn < set(after.holdout["group"])
    left = 800 - after.neither.height
    assert 0.16 < after.holdout.height / left < 0.24


def test_a_retired_example_rests_alone_and_its_customer_and_what_it_resembles_stay_held_out() -> None:
    frame = examples(*[("g0", "bell")] * 3, *[(f"g{number}", "bell") for number in range(1, 60)])
    seen = [*[Seen.EXAMPLE] * 4, *[Seen.NEVER] * 58]
    retired = [True, *[False] * 61]
    after = split_examples(frame, [SimilarPair(0, 3, 0.7)], holdout=0.2, seen=seen, retired=retired)
    assert after.neither["example_id"].to_list() == ["ex-0000"]
    assert {"ex-0001", "ex-0002", "ex-0003"} < set(after.holdout["example_id"])


def test_a_holdout_of_retired_examples_alone_is_replaced() -> None:
    frame = examples(*[(f"g{number}", "bell") for number in range(20)])
    seen = [Seen.EXAMPLE, Seen.EXAMPLE, *[Seen.TRAINED] * 18]
    after = split_examples(frame, [], holdout=0.1, seen=seen, retired=[True, True, *[False] * 18])
    assert set(after.neither["group"]) == {"g0", "g1"}
    assert after.holdout.height == 1


def test_a_unit_that_grew_large_trains_without_the_retired_example() -> None:
    frame = examples(*[(f"g{number}", "bell") for number in range(40)])
    pairs = [SimilarPair(number, number + 1, 0.7) for number in range(20)]
    seen = [Seen.EXAMPLE, *[Seen.NEVER] * 39]
    after = split_examples(frame, pairs, holdout=0.2, seen=seen, retired=[True, *[False] * 39])
    assert set(after.neither["group"]) == {"g0", "g1"}
    assert {f"g{number}" for number in range(2, 21)} <= set(after.train["group"])


def said(*texts: str) -> str | None:
    roles = ("user", "assistant")
    return json.dumps([{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]) or None


def pairs(frame) -> set[tuple[int, int]]:
    return {(pair.first, pair.second) for pair in conversation_pairs(frame)}


def test_feedback_on_two_turns_of_one_session_is_on_one_side(records, spec) -> None:
    """Without a customer each completion is a group of its own."""
    rows: list[dict[str, Any]] = []
    for number in range(40):
        first = " ".join(f"a{number}x{word}" for word in range(8))
        second = " ".join(f"b{number}x{word}" for word in range(30))
        answer = json.dumps({"category": ("bell", "horn")[number % 2]})
        rows += [
            {"input": first, "output": answer, "kind": "feedback"},
            {"input": second, "output": answer, "history": said(first, answer), "kind": "feedback"},
        ]
    made = build(records(*rows), spec(pii={"action": "pseudonymise"}))
    assert made.counts.holdout >= 6
    held = {int(name.removeprefix("rec-")) // 2 for ids in made.split.holdout["record_ids"] for name in ids}
    trained = {int(name.removeprefix("rec-")) // 2 for ids in made.split.train["record_ids"] for name in ids}
    assert held.isdisjoint(trained)
    assert len(held) * 2 == made.counts.holdout


@pytest.mark.parametrize(
    ("earlier", "later", "one"),
    [
        (("Where is my parcel?", None), ("And now?", said("where is my  parcel?", "Here.")), True),
        (
            ("Where is my parcel?", None),
            ("And now?", said("Hello", "Hi!", "Where is my parcel?", "Here.")),
            True,
        ),
        (("Yes", said("Hi", "A bike?")), ("Red", said("A bike?", "A bike?", "Yes", "Which?")), True),
        (("Yes", said("Hi", "A bike?")), ("Red", said("Hi", "A boat?", "Yes", "Which?")), False),
        (("Hello there", None), ("And now?", said("Hello there", "Hi!")), True),
        (("Hello there", None), ("And now?", said("Hi", "Hi!", "Hello there", "What?")), False),
        (("Where is my parcel?", None), ("And now?", None), False),
    ],
)
def test_an_earlier_question_is_found_in_the_later_history(records, earlier, later, one: bool) -> None:
    frame = records(*({"input": text, "history": history} for text, history in (earlier, later)))
    assert pairs(frame) == ({(0, 1)} if one else set())


def test_an_everyday_beginning_joins_nobody(records) -> None:
    opening = "I need help with my order"
    for groups, joined in ((MOST_GROUPS, MOST_GROUPS), (MOST_GROUPS + 1, 0)):
        later = [{"input": f"number {n}", "history": said(opening, "Its number?")} for n in range(groups)]
        assert len(pairs(records({"input": opening}, *later))) == joined
