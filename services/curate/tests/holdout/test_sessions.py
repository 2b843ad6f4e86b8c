"""Turns of one conversation are on one side, whatever groups their records name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_curate.holdout.sessions import MOST_GROUPS, conversation_pairs
from tunewheel_curate.pipeline import build


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
