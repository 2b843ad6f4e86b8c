from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_redaction.finding import Finding
from tunewheel_redaction.folding import as_written, fold

WRITTEN = [
    ("jane&#64;acme.com", "jane@acme.com"),
    ("jane&#x40;acme&period;com", "jane@acme.com"),
    ("jane&amp;amp;#64;acme.com", "jane@acme.com"),
    ("jane%40acme.com", "jane@acme.com"),
    ("jane%252540acme.com", "jane@acme.com"),
    ("jane=40acme=2Ecom, card=4012", "jane@acme.com, card=4012"),
    ("jane [at] acme (dot) com", "jane@acme.com"),
    ("536-\n> 90-4399", "536-90-4399"),
    (r"jane\u0040acme.com", "jane@acme.com"),
    (r"jane\x40acme.com", "jane@acme.com"),
    ("ｊａｎｅ＠ａｃｍｅ．ｃｏｍ", "jane@acme.com"),  # noqa: RUF001
    ("ja\u200bne\u2060@ac\u00adme.com", "jane@acme.com"),
    ("4111\u00a01111\u20091111\u202f1111", "4111 1111 1111 1111"),
    ("4111\u20111111\u20131111\uff0d1111", "4111-1111-1111-1111"),
    ("٤١١١ ११११", "4111 1111"),
    ("AT&T, R&amp;D, 100% and 50%", "AT&T, R&D, 100% and 50%"),
    (r"half of a pair \ud83d, an & and a % and a \u", r"half of a pair \ud83d, an & and a % and a \u"),
    ("Grüße, naïve “quotes” and 日本", "Grüße, naïve “quotes” and 日本"),
]


@pytest.mark.parametrize(("written", "read"), WRITTEN)
def test_a_text_is_folded_to_what_people_read(written: str, read: str) -> None:
    assert fold(written) == read


def test_what_is_found_is_taken_out_as_it_was_written() -> None:
    written = "to ja\u200bne&#64;acme.com\u2060, please"
    start = fold(written).index("jane@acme.com")
    (found,) = as_written([Finding("EMAIL_ADDRESS", start, start + 13, 1.0)], written)
    assert written[found.start : found.end] == "ja\u200bne&#64;acme.com"


@given(st.text(st.sampled_from("ab&#6410;%20\\u\u200b\u00a0＠amp"), max_size=40), st.data())  # noqa: RUF001
def test_every_part_of_the_folded_text_has_a_place_in_the_written_one(text: str, data: st.DataObject) -> None:
    folded = fold(text)
    if not folded:
        return
    start = data.draw(st.integers(0, len(folded) - 1))
    end = data.draw(st.integers(start + 1, len(folded)))
    (found,) = as_written([Finding("X", start, end, 1.0)], text)
    assert 0 <= found.start < found.end <= len(text)
    assert folded[start:end] in fold(text[found.start : found.end])


def test_hostile_texts_take_linear_work() -> None:
    for hostile in ("&amp;" * 50_000, "&" * 200_000, "&#" * 100_000, "%" * 200_000, "\\u" * 100_000):
        assert len(fold(hostile)) <= len(hostile)
