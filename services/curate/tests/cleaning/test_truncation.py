from __future__ import annotations

import pytest
from tunewheel_curate.cleaning.truncation import LEAST_CHARACTERS, is_truncated

LONG = "Take the lever off, oil the spring inside the bell and put it back. " * 3


@pytest.mark.parametrize(
    "answer",
    [
        LONG + "Then turn the",
        LONG + "Then, ",
        LONG + "Use the tool (",
        LONG + "Mind the over-",
        "Run:\n```\nmake bell",
    ],
)
def test_an_answer_that_stops_midway_is_noticed(answer: str) -> None:
    assert is_truncated(answer)


@pytest.mark.parametrize(
    "answer",
    ["refund", "Turn the", "yes,", LONG, LONG + "Best regards", LONG + "1. Oil\n2. Wait", LONG + "🚲",
     "Run:\n```\nmake bell\n```", LONG + "جرس", "", LONG + "Order 4711-"],
)  # fmt: skip
def test_a_whole_answer_is_not(answer: str) -> None:
    assert not is_truncated(answer)


def test_a_huge_answer_is_read_once() -> None:
    assert not is_truncated("the " * 500_000 + "end.")
    assert is_truncated(" " * 1_000_000 + "x" * LEAST_CHARACTERS + " the")
