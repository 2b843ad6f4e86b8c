from __future__ import annotations

import pytest
from tunewheel_outputs.terms import names_in, terms_of


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Your order LM-0042 costs 12.50 EUR.", {"lm-0042", "12.50", "eur"}),
        ("Restart the Turbo Pump. Then wait.", {"turbo", "pump"}),
        ("Please use the iPhone app, or see acme.com/help2", {"iphone", "acme.com/help2"}),
        ("1. Open it\n2. Close it\n- Wait\n* Look", set()),
        ("I said: \u201eWait\u201c (Now)", set()),
        ("", set()),
        ("a" * 100_000 + " 7", set()),
    ],
)
def test_names_are_told_from_words(text: str, names: set[str]) -> None:
    assert names_in(text) == names


def test_terms_are_all_words_and_their_parts() -> None:
    assert terms_of(["Turbo-Pump X9", "\u0130stanbul"]) >= {"turbo-pump", "turbo", "pump", "x9"}
    assert names_in("in \u0130stanbul") <= terms_of(["\u0130stanbul"])
