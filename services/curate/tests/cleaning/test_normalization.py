from __future__ import annotations

import re
import unicodedata

import polars as pl
import pytest
from ftfy import fix_text
from ftfy.badness import BADNESS_RE, is_bad
from hypothesis import given, settings
from hypothesis import strategies as st
from tunewheel_curate.cleaning import normalization
from tunewheel_curate.cleaning.normalization import (
    comparison_key,
    normalize_records,
    normalize_text,
    normalize_texts,
)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("It wonâ€™t ring", "It won’t ring"),  # noqa: RUF001
        ("a \t b  \r\n\r\n\r\n\r\nc ", "a b\n\nc"),
        ("ring\x00\x07!", "ring!"),
        ("ﬁne", "fine"),
        ("Großküche", "Großküche"),
    ],
)
def test_text_is_repaired(raw: str, clean: str) -> None:
    assert normalize_text(raw) == clean
    assert normalize_text(clean) == clean


def test_texts_that_read_the_same_have_one_key() -> None:
    assert comparison_key("It’s  LATE\n") == comparison_key("it's late")  # noqa: RUF001
    assert comparison_key("late") != comparison_key("late?")


def test_near_empty_inputs_are_dropped(records) -> None:
    stage = normalize_records(
        records({"input": " hi "}, {"output": " \n"}, {}), pl.lit(value=False), min_characters=3
    )
    assert stage.funnel.reasons == {"near_empty": 1, "no_output": 1}
    assert stage.kept.height == 1


ASCII = st.text(st.characters(max_codepoint=0x7F), max_size=60)
PLAIN = st.text("ab .\n&;<#", max_size=40)
MOJIBAKE = st.text("aâ€™Ã©\u00a0\u0301ﬁ\x9f\u2028 ’–é漢ｱ\n", max_size=40)  # noqa: RUF001


@settings(max_examples=300)
@given(st.one_of(ASCII, PLAIN, MOJIBAKE, st.text(max_size=40)))
def test_the_short_way_is_the_long_way(text: str) -> None:
    """What is left alone without asking ftfy is what ftfy leaves alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(normalization, "_DOUBTFUL", re.compile(""))
        patch.setattr(normalization, "_repaired", lambda text: fix_text(text, normalization._REPAIR))
        slow = normalize_text(text)
    assert normalize_text(text) == slow
    assert normalize_texts(pl.Series(["before  ", text])).to_list() == ["before", slow]


@settings(max_examples=300)
@given(st.lists(st.one_of(MOJIBAKE, ASCII), min_size=2, max_size=5), st.integers(0, 200))
def test_signs_of_mojibake_are_found_among_many_words(parts: list[str], between: int) -> None:
    text = ("word " * between).join(parts)
    assert normalization._is_mojibake(text) == is_bad(text)


def test_no_sign_of_mojibake_is_longer_than_what_is_looked_at() -> None:
    longest = re._parser.parse(BADNESS_RE.pattern, BADNESS_RE.flags).getwidth()[1]  # type: ignore[attr-defined]
    assert longest < normalization.LONGEST_SIGN
    assert not BADNESS_RE.flags & re.MULTILINE


@given(st.one_of(ASCII, st.text(max_size=40)))
def test_keys_are_folded_alike_whatever_the_alphabet(text: str) -> None:
    quotes = str.maketrans(normalization._QUOTES)
    folded = unicodedata.normalize("NFKC", text).casefold().translate(quotes)
    assert comparison_key(text) == re.sub(r"\s+", " ", folded).strip()
