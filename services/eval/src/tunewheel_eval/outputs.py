"""What a contestant wrote, read the way a program downstream would: strictly."""

from __future__ import annotations

import json
from typing import Any

from jsonschema.protocols import Validator


class Unparsed(ValueError):
    """The output is not one JSON value."""


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()
"""The output has no such label; unlike ``None``, which JSON can hold."""


def parse(output: str) -> Any:
    """Return the JSON value that ``output`` is, white space around it aside.

    Fenced or chatty answers are not forgiven: whoever consumes them would have to be as forgiving.

    Raises:
        Unparsed: not one JSON value (RFC 8259: NaN and the infinities are none).
    """
    try:
        return json.loads(output.strip(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Unparsed(str(error)) from error


def is_valid(output: str, validator: Validator) -> bool:
    """True when ``output`` parses and fits the schema. One that is nested too deep, or holds a number too
    large, for the schema to be checked does not.
    """
    try:
        return validator.is_valid(parse(output))
    except (Unparsed, RecursionError, ArithmeticError):
        return False


def label_of(output: str, label_field: str) -> Any:
    """Return the label that ``output`` carries, ``MISSING`` where it is no JSON object with that field."""
    try:
        value = parse(output)
    except Unparsed:
        return MISSING
    return value.get(label_field, MISSING) if isinstance(value, dict) else MISSING


def same_label(output: str, expected: str, label_field: str) -> bool:
    """True when both carry the label, and it is the same JSON value: ``1`` is ``1.0`` and is not ``true``
    (JSON Schema 2020-12, §4.2.2)."""
    left, right = label_of(output, label_field), label_of(expected, label_field)
    return MISSING not in (left, right) and _equal(left, right)


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return left == right


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
