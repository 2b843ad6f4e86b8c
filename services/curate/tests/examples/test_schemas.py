"""Both validators agree wherever the faster one is asked, and only there is it asked."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from tunewheel_curate.examples.schemas import SchemaCheck, is_plain

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


def test_what_is_wrong_is_told_by_the_thorough_one() -> None:
    schema = {"properties": {"kind": {"enum": ["bell", "horn"]}}, "required": ["kind"]}
    error = SchemaCheck(schema).error({"kind": "drum"})
    assert error is not None
    assert (list(error.absolute_path), error.validator) == (["kind"], "enum")
