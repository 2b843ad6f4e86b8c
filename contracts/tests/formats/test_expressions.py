"""Expressions of sources: the functions that JMESPath lacks, and input that is hostile."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tunewheel_contracts.formats.expressions import Unreadable, search

CALL = "conversation(messages, &by, customer, &text)"


def conversation(*said: tuple[str, str]) -> Any:
    messages = [{"by": by, "text": text} for by, text in said]
    return search(CALL, {"customer": "c", "messages": messages})


def test_a_conversation_ends_with_the_last_question_and_its_answer() -> None:
    found = conversation(
        ("c", "Hi"), ("a", "Hello"), ("c", "It broke."), ("c", "The pump."), ("a", "Oil it."), ("b", "Now.")
    )
    assert found["question"] == "It broke.\n\nThe pump."
    assert found["answer"] == "Oil it.\n\nNow."
    assert found["history"] == [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]


def test_a_customer_who_waits_has_no_answer() -> None:
    assert conversation(("c", "Hi"), ("a", "Hello"), ("c", "It broke."))["answer"] is None
    assert conversation(("a", "A notice to all."))["question"] is None
    assert conversation()["history"] == []


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (1738960610, "2025-02-07T20:36:50+00:00"),
        (1738960610000, "2025-02-07T20:36:50+00:00"),
        (1738960610000000, "2025-02-07T20:36:50+00:00"),
        ("1738960610", "2025-02-07T20:36:50+00:00"),
        ("2026-02-19T10:32:08.152+0100", "2026-02-19T10:32:08.152000+01:00"),
        ("2026-08-11 23:10:06", "2026-08-11T23:10:06+00:00"),
        ("2026-08-11T23:10:06Z", "2026-08-11T23:10:06+00:00"),
        ("", None),
        (None, None),
    ],
)
def test_times_are_read_in_the_spellings_of_other_systems(value: Any, time: str | None) -> None:
    assert search("time(at)", {"at": value}) == time


@pytest.mark.parametrize("value", ["yesterday", [1], {"at": 1}, 1e300, float("inf"), float("nan"), "9" * 400])
def test_what_is_no_time_is_unreadable(value: Any) -> None:
    with pytest.raises(Unreadable):
        search("time(at)", {"at": value})


def test_deep_and_long_values_take_bounded_time() -> None:
    deep: Any = "end"
    for _ in range(100_000):
        deep = {"content": [deep]}
    assert search("text(@)", deep) is None  # the text lies below the deepest level that is looked at
    assert search("parse_json(@)", "[" * 100_000) == "[" * 100_000
    assert (
        len(search(CALL, {"customer": "c", "messages": [{"by": "c", "text": "x"}] * 100_000})["question"])
        < 1_000
    )


@pytest.mark.parametrize("kind", ["text", "paragraph"])
def test_a_text_of_many_parts_takes_time_in_proportion_to_them(kind: str) -> None:
    parts = [{"type": kind, "text": "x" * 60}] * 50_000
    began = time.process_time()
    assert len(search("text(@)", parts)) >= 3_000_000
    assert time.process_time() - began < 5  # seconds of the processor; a fraction of one is enough
