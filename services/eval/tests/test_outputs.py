from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.output_schema import answer_validator
from tunewheel_eval.outputs import MISSING, Unparsed, is_valid, label_of, parse, same_label

SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["category"],
    "properties": {"category": {"enum": ["billing", "delivery"]}},
}


@pytest.mark.parametrize("output", ['{"a": 1}', '  {"a": 1}\n', "[1]", '"text"', "null"])
def test_json_parses(output: str) -> None:
    parse(output)


@pytest.mark.parametrize(
    "output",
    [
        "",
        "text",
        '```json\n{"a": 1}\n```',
        '{"a": 1} Anything else?',
        "{'a': 1}",
        '{"a": NaN}',
        "[" * 100_000,
    ],
)
def test_what_a_program_could_not_read_does_not_parse(output: str) -> None:
    with pytest.raises(Unparsed):
        parse(output)


@pytest.mark.parametrize(
    ("output", "valid"),
    [('{"category": "billing"}', True), ('{"category": "other"}', False), ("{}", False), ("billing", False)],
)
def test_validity_is_the_schemas(output: str, valid: bool) -> None:
    assert is_valid(output, answer_validator(SCHEMA)) is valid


def test_what_is_nested_deeper_than_the_schema_can_be_followed_is_not_valid() -> None:
    nested = {"$defs": {"list": {"type": "array", "items": {"$ref": "#/$defs/list"}}}, "$ref": "#/$defs/list"}
    validator = answer_validator(nested)
    assert is_valid("[[[]]]", validator)
    assert not is_valid("[" * 700 + "]" * 700, validator)


@pytest.mark.parametrize(
    ("output", "label"),
    [
        ('{"category": "billing", "x": 1}', "billing"),
        ('{"category": null}', None),
        ("{}", MISSING),
        ("[]", MISSING),
        ("category: billing", MISSING),
    ],
)
def test_label_is_read_from_the_answer(output: str, label: Any) -> None:
    assert label_of(output, "category") == label


@pytest.mark.parametrize(
    ("output", "expected", "same"),
    [
        ('{"c": "a"}', '{"c": "a", "d": 1}', True),
        ('{"c": 1}', '{"c": true}', False),
        ('{"c": 1.0}', '{"c": 1}', True),
        ('{"c": [{"d": 2, "e": 0}]}', '{"c": [{"e": 0.0, "d": 2.0}]}', True),
        ('{"c": [1]}', '{"c": [true]}', False),
        ('{"c": [1, 2]}', '{"c": [1]}', False),
        ('{"c": {"d": 1}}', '{"c": {"e": 1}}', False),
        ('{"c": "1"}', '{"c": 1}', False),
        ('{"c": ["a"]}', '{"c": ["a"]}', True),
        ("{}", "{}", False),
        ('{"c": "A"}', '{"c": "a"}', False),
    ],
)
def test_labels_are_compared_as_json_values(output: str, expected: str, same: bool) -> None:
    assert same_label(output, expected, "c") is same


@pytest.mark.parametrize("output", ['{"n": 1e999}', '{"n": 1' + "0" * 400 + "}", "[" * 800 + "]" * 800])
def test_an_output_that_cannot_be_checked_is_not_valid(output: str) -> None:
    """The model says what it likes: no answer of it may end the evaluation."""
    schema = {"properties": {"n": {"multipleOf": 0.5}}, "items": {"$ref": "#"}}
    assert not is_valid(output, answer_validator(schema))
