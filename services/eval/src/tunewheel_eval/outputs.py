"""What a contestant wrote, read the way a program downstream would: strictly."""

from __future__ import annotations

import json
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError
from referencing import Registry
from referencing.exceptions import Unresolvable
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.fields import JsonObject


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


def output_validator(schema: JsonObject) -> Draft202012Validator:
    """Compile a project's output schema; references outside it are never fetched.

    Raises:
        InvalidEvent: the schema is not JSON Schema 2020-12.
    """
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as error:
        where = ".".join(["spec.task.output_schema", *map(str, error.absolute_path)])
        raise InvalidEvent(field=where, reason=f"is not JSON Schema 2020-12: {error.message}") from error
    return Draft202012Validator(schema, registry=Registry())


def is_valid(output: str, validator: Draft202012Validator) -> bool:
    """True when ``output`` parses and fits the schema. One that is nested too deep, or holds a number too
    large, for the schema to be checked does not.

    Raises:
        InvalidEvent: the schema refers to something outside it.
    """
    try:
        return validator.is_valid(parse(output))
    except (Unparsed, RecursionError, ArithmeticError):
        return False
    except Unresolvable as error:
        reason = f"refers to {error.ref!r}, which is not in it; put the definition under $defs"
        raise InvalidEvent(field="spec.task.output_schema", reason=reason) from error


def label_of(output: str, label_field: str) -> Any:
    """Return the label that ``output`` carries, ``MISSING`` where it is no JSON object with that field."""
    try:
        value = parse(output)
    except Unparsed:
        return MISSING
    return value.get(label_field, MISSING) if isinstance(value, dict) else MISSING


def same_label(output: str, expected: str, label_field: str) -> bool:
    """True when both carry the label and the labels are the same JSON value (``1`` is not ``true``)."""
    left, right = label_of(output, label_field), label_of(expected, label_field)
    if left is MISSING or right is MISSING:
        return False
    return json.dumps(left, sort_keys=True) == json.dumps(right, sort_keys=True)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
