"""Whether an answer fits its schema, at a cost that a hundred thousand answers can bear."""

from __future__ import annotations

from typing import Any

from jsonschema.exceptions import ValidationError, best_match
from jsonschema_rs import Draft202012Validator as RustValidator
from tunewheel_contracts.formats.output_schema import answer_validator

_ABOUT = {"$schema", "title", "description", "examples", "default"}
_SIZES = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
_PLAIN = {
    *_ABOUT,
    *_SIZES,
    "type",
    "enum",
    "const",
    "required",
    "properties",
    "items",
    "additionalProperties",
}


class SchemaCheck:
    """By what evaluation and drift go by, too.

    Of a plain schema ``jsonschema_rs`` is asked first, a hundredth of the cost for a list of many labels. Of
    others (regular expressions, fractions, references) the two need not think alike, and it is not.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._validator = answer_validator(schema)
        self._quick = RustValidator(schema) if is_plain(schema) else None

    def error(self, value: Any) -> ValidationError | None:
        """Return what is wrong with ``value``, the most telling of several, or None.

        Raises:
            ArithmeticError, RecursionError: a number is too large, or it is nested too deep, to be checked.
        """
        if self._quick is not None and self._quick.is_valid(value):
            return None
        return best_match(self._validator.iter_errors(value))


def is_plain(schema: Any) -> bool:
    """Tell whether ``schema`` asks only for what every validator understands alike."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict) or not schema.keys() <= _PLAIN:
        return False
    named = [*schema.get("enum", ()), schema.get("const")]
    inner = [*schema.get("properties", {}).values()]
    inner += [schema[name] for name in ("items", "additionalProperties") if name in schema]
    return all(value is None or isinstance(value, str | bool) for value in named) and all(
        map(is_plain, inner)
    )
