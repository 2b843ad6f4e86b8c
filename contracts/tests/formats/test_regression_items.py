from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from tunewheel_contracts.formats.regression_items import (
    RegressionItem,
    general_items,
    parse_items,
    read_items,
)


def item(**changes: Any) -> RegressionItem:
    plain = {"item_id": "i", "kind": "k", "prompt": "p", "answer": "Paris", "match": "contains"}
    return RegressionItem.model_validate({**plain, **changes})


def test_the_set_that_comes_along_is_large_and_mixed() -> None:
    items = general_items()
    assert len(items) >= 200  # so many tell a loss of 10 points from none
    assert len({one.kind for one in items}) >= 8
    assert sum(bool(one.choices) for one in items) >= 180
    assert len({one.key for one in items}) == len(items)


@pytest.mark.parametrize(
    ("match", "answer", "output", "right"),
    [
        ("contains", "Paris", "It is PARIS, of course.", True),
        ("contains", "cat", "I would concatenate them", False),
        ("contains", "New York", "New\n York!", True),
        ("exact", "yes", " Yes.\nBecause I say so.", True),
        ("exact", "yes", "yes indeed", False),
        ("exact", "-5", "5", False),
        ("exact", "42", '"42"', True),
        ("contains", "4", "", False),
    ],
)
def test_greedy_answers_are_judged_by_their_words(match: str, answer: str, output: str, right: bool) -> None:
    assert item(match=match, answer=answer).is_right(output) is right


def test_choice_is_right_only_as_it_stands() -> None:
    one = item(match="choice", choices=["Paris", "Rome"])
    assert one.is_right("Paris")
    assert not one.is_right("paris")


@pytest.mark.parametrize(
    "changes",
    [
        {"match": "choice"},
        {"choices": ["Paris", "Rome"]},
        {"match": "choice", "choices": ["Rome", "Oslo"]},
        {"match": "choice", "choices": ["Paris", "Paris"]},
        {"answr": "x"},
    ],
)
def test_unanswerable_items_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        item(**changes)


def test_fault_is_named_by_file_line_and_field() -> None:
    good = item().model_dump_json(exclude_none=True)
    with pytest.raises(ValueError, match=r"own\.jsonl, line 3, prompt: "):
        parse_items(f'{good}\n\n{{"item_id": "j"}}\n'.replace('"j"', '"j", "kind": "k"'), name="own.jsonl")
    with pytest.raises(ValueError, match=r"own\.jsonl, line 1: is not JSON"):
        parse_items("{", name="own.jsonl")
    with pytest.raises(ValueError, match="item_id must differ"):
        parse_items(f"{good}\n{good}\n", name="own.jsonl")


def test_key_follows_content() -> None:
    assert item().key == item().key
    assert item().key != item(prompt="q").key


def test_without_a_path_the_own_set_is_read() -> None:
    assert read_items(None) == general_items()
