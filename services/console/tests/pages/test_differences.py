"""What only one of two answers has is marked, on both sides alike, and what both have is plain text."""

from __future__ import annotations

import re

import pytest
from tunewheel_console.pages.drawing import MOST_TOKENS, marked


def marks(text: str) -> list[str]:
    return re.findall(r"<mark>(.*?)</mark>", text)


@pytest.mark.parametrize(
    ("left", "right", "of_left", "of_right"),
    [
        ("It arrives on Monday.", "It arrives on Tuesday.", ["Monday"], ["Tuesday"]),
        ("It arrives on Monday.", "It arrives on Monday, by noon.", [], [", by noon"]),
        ("我的包裹明天到", "我的包裹今天到", ["明"], ["今"]),
        ("Same words.", "Same words.", [], []),
        ("It  arrives on Monday", "It arrives on Monday", [], []),
        ("one two three four", "five six seven eight", [], []),
        ("", "It arrives", [], []),
    ],
)
def test_words_of_one_side_alone_are_marked(left: str, right: str, of_left: list[str], of_right: list[str]):
    for one, other, expected in ((left, right, (of_left, of_right)), (right, left, (of_right, of_left))):
        shown = marked(one, other)
        assert tuple(map(marks, shown)) == expected
        assert tuple(re.sub(r"<[^>]+>", "", text) for text in shown) == (one, other)


def test_texts_of_models_stay_texts():
    shown = marked("see <b>this</b> & that", "see <i>this</i> & that")
    assert re.findall(r"<(?!/?mark)", "".join(shown)) == []
    assert "&lt;" in shown[0]


def test_very_long_answers_have_no_marks():
    word = "long "
    assert marked(word * MOST_TOKENS, word * MOST_TOKENS + "x")[1] == word * MOST_TOKENS + "x"
