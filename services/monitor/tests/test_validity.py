"""Whether an output keeps its form."""

from __future__ import annotations

import pytest
from tunewheel_monitor.validity import OutputForm

SCHEMA = {"type": "object", "properties": {"n": {"type": "number"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("output", "valid"),
    [
        (' {"n": 1}\n', True),
        ('{"n": "1"}', False),
        ('```json\n{"n": 1}\n```', False),
        ('{"n": NaN}', False),
        ("", False),
        ("[" * 100_000, False),
    ],
)
def test_an_output_must_fit_the_schema(output: str, valid: bool):
    assert OutputForm(SCHEMA).is_valid(output) is valid


def test_without_a_schema_every_answer_that_says_something_is_valid():
    assert OutputForm(None).is_valid("hello")
    assert not OutputForm(None).is_valid(" \n")


@pytest.mark.parametrize("output", ['{"n": 1e999}', '{"n": 1' + "0" * 400 + "}", "[" * 800 + "]" * 800])
def test_an_output_that_cannot_be_checked_is_not_valid(output: str):
    """Whoever asks can make the model say it: it must not end the monitor, again at every restart."""
    schema = {"properties": {"n": {"multipleOf": 0.5}}, "items": {"$ref": "#"}}
    assert not OutputForm(schema).is_valid(output)
