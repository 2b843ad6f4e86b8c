from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_outputs.parsing import DEEPEST, Unparsed, parse, readable

HALF = '{"reply": "mail a@example.com \\ud83d"}'
"""An emoji that was cut in two: JSON itself can say it, UTF-8 cannot."""


@pytest.mark.parametrize("text", ['{"a": 1}', '  {"a": 1}\n', "[1]", '"text"', "null", '"\\ud83d\\ude00"'])
def test_json_parses(text: str) -> None:
    assert parse(text) == json.loads(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text",
        '```json\n{"a": 1}\n```',
        '{"a": 1} Anything else?',
        "{'a': 1}",
        '{"a": NaN}',
        HALF,
        '"\ud83d"',
        "1e999",
        "1" * 5_000,
        "[" * (DEEPEST + 1) + "]" * (DEEPEST + 1),
        "[" * 480 + "]" * 480,
        "[" * 100_000,
    ],
)
def test_values_that_a_json_program_could_not_read_or_write_do_not_parse(text: str) -> None:
    with pytest.raises(Unparsed):
        parse(text)


@given(st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | st.text(), st.lists, max_leaves=20))
def test_all_else_is_read_as_it_is(value: object) -> None:
    assert parse(json.dumps(value)) == value


def test_half_a_character_becomes_one_that_a_file_can_hold() -> None:
    assert readable("ä \ud83d!") == "ä \ufffd!"
    assert readable("ä 😀") == "ä 😀"
