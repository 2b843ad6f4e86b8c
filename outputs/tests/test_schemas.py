"""Both validators agree wherever the faster one is asked, and only there is it asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tunewheel_outputs.schema import SchemaCheck, is_plain

WORDS = st.sampled_from(["bell", "horn", "Ä", "💡💡", "", "1", "true"])
NUMBERS = st.one_of(st.integers(), st.sampled_from([0, 1, 1.0, 1.5, -0.0, 1e300, 10**40]))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, WORDS)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
)
TYPES = st.sampled_from(["string", "number", "integer", "boolean", "null", "object", "array"])
SIZES = st.integers(0, 3)


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES | st.lists(TYPES, min_size=1, unique=True),
            "enum": st.lists(st.none() | st.booleans() | WORDS, min_size=1, unique_by=repr),
            "const": st.none() | st.booleans() | WORDS,
            "required": st.lists(WORDS, unique=True),
            "properties": st.dictionaries(WORDS, inner, max_size=3),
            "items": inner,
            "additionalProperties": inner,
            "minLength": SIZES,
            "maxLength": SIZES,
            "minItems": SIZES,
            "maxProperties": SIZES,
        },
    )


SCHEMAS = st.recursive(st.booleans(), objects, max_leaves=6).filter(lambda schema: isinstance(schema, dict))


@given(schema=SCHEMAS, value=VALUES)
def test_a_plain_schema_means_the_same_to_both(schema: dict[str, Any], value: Any) -> None:
    assert is_plain(schema)
    fits = Draft202012Validator(schema).is_valid(value)
    assert (SchemaCheck(schema).error(value) is None) == fits


@pytest.mark.parametrize(
    "schema",
    [
        {"pattern": "^a"},
        {"properties": {"a": {"items": {"format": "email"}}}},
        {"enum": [1.0]},
        {"const": 3},
        {"multipleOf": 0.1},
        {"$ref": "#/$defs/x", "$defs": {"x": {}}},
        {"additionalProperties": {"minimum": 2}},
    ],
)
def test_others_are_left_to_one_validator(schema: dict[str, Any]) -> None:
    assert not is_plain(schema)


def test_errors_come_from_the_complete_validator() -> None:
    schema = {"properties": {"kind": {"enum": ["bell", "horn"]}}, "required": ["kind"]}
    error = SchemaCheck(schema).error({"kind": "drum"})
    assert error is not None
    assert (list(error.absolute_path), error.validator) == (["kind"], "enum")


FORM: dict[str, Any] = {
    "type": "object",
    "required": ["category"],
    "properties": {"category": {"enum": ["billing", "delivery"]}},
}


@pytest.mark.parametrize(
    ("answer", "fits"),
    [('{"category": "billing"}', True), ('{"category": "other"}', False), ("{}", False), ("billing", False)],
)
def test_an_answer_fits_or_does_not(answer: str, fits: bool) -> None:
    assert SchemaCheck(FORM).fits(answer) is fits
    assert (SchemaCheck(FORM).errors(answer) == 0) is fits


def test_an_answer_nested_too_deeply_for_the_schema_does_not_fit() -> None:
    nested = {"$defs": {"list": {"type": "array", "items": {"$ref": "#/$defs/list"}}}, "$ref": "#/$defs/list"}
    assert SchemaCheck(nested).fits("[[[]]]")
    assert not SchemaCheck(nested).fits("[" * 700 + "]" * 700)


@pytest.mark.parametrize("answer", ['{"n": 1e999}', '{"n": 1' + "0" * 400 + "}", "[" * 800 + "]" * 800])
def test_an_answer_that_cannot_be_checked_does_not_fit(answer: str) -> None:
    """The model says what it likes: no answer of it may end the evaluation."""
    schema = SchemaCheck({"properties": {"n": {"multipleOf": 0.5}}, "items": {"$ref": "#"}})
    assert not schema.fits(answer)
    assert schema.errors(answer) == 1


def test_a_pattern_costs_a_hostile_answer_no_more_than_another() -> None:
    """Python's own engine would double its time with every letter."""
    schema = SchemaCheck({"properties": {"reply": {"pattern": r"^(\w+\s?)*$"}}})
    assert schema.error({"reply": "a" * 100_000 + "!"}) is not None
    assert schema.error({"reply": "a" * 100_000}) is None
    error = schema.error({"reply": "no!"})
    assert error is not None
    assert (list(error.absolute_path), error.validator) == (["reply"], "pattern")
