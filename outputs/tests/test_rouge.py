from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_outputs.rouge import rouge_l, rouge_n
from tunewheel_outputs.texts import words_of

TEXTS = st.lists(st.sampled_from(["a", "b", "c", "the", "Café", "кот", "7"]), max_size=12).map(" ".join)


class Words:
    def tokenize(self, text: str) -> list[str]:
        return words_of(text)


@pytest.fixture(scope="module")
def scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # two seconds of a processor

    return RougeScorer(["rouge1", "rouge2", "rougeL"], tokenizer=Words())


def test_known_pairs() -> None:
    # Longest common subsequence 3 of 4 and 5 words: P = 3/5, R = 3/4, F1 = 2/3.
    pairs = [("the cat sat down there", "the cat there ran"), ("same", "same"), ("", "x"), ("x", "")]
    assert [rouge_l(*pair) for pair in pairs] == pytest.approx([2 / 3, 1.0, 0.0, 0.0])
    assert rouge_l("привет мир", "Привет, мир!") == 1.0
    # Of four and three pairs of words they share one.
    assert rouge_n("the cat sat down there", "the cat there ran", 2) == pytest.approx(2 / 7)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("请重启路由器", "请重启服务器"),
        ("ルーターを再起動してください", "サーバーを再起動してください"),
        ("กรุณารีสตาร์ทเราเตอร์", "กรุณารีสตาร์ทเซิร์ฟเวอร์"),
        ("请重启Heron路由器", "请重启Larch路由器"),
    ],
)
def test_sentences_without_spaces_that_differ_in_a_word_are_alike(answer: str, expected: str) -> None:
    assert 0.5 < rouge_l(answer, expected) < 1.0
    assert 0.3 < rouge_n(answer, expected, 2) < rouge_n(answer, expected, 1) < 1.0


def test_latin_words_between_characters_stay_whole() -> None:
    assert words_of("请重启 Heron-42路由器、カメラ") == [*"请重启", "heron", "42", *"路由器カメラ"]


@given(answer=TEXTS, expected=TEXTS)
def test_the_figures_are_those_of_rouge_score(scorer: Any, answer: str, expected: str) -> None:
    theirs = scorer.score(expected, answer)
    assert rouge_n(answer, expected, 1) == pytest.approx(theirs["rouge1"].fmeasure)
    assert rouge_n(answer, expected, 2) == pytest.approx(theirs["rouge2"].fmeasure)
    assert rouge_l(answer, expected) == pytest.approx(theirs["rougeL"].fmeasure)
