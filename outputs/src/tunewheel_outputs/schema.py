"""Checks answers against a JSON Schema, fast enough for a hundred thousand answers."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from tunewheel_contracts.formats.output_schema import pattern_matcher

from tunewheel_outputs.parsing import Unparsed, parse

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator

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


def answer_validator(schema: dict[str, Any]) -> Validator:
    """Return a validator for ``schema`` (JSON Schema 2020-12), which ``check_output_schema`` has accepted.

    References outside the schema are never fetched. Patterns run on a linear-time engine, because answers are
    untrusted.
    """
    from referencing import Registry

    registry: Registry[Any] = Registry()
    return _validator_class()(schema, registry=registry)


class SchemaCheck:
    """One project's schema. Curation, evaluation and drift detection all check answers with it.

    For a plain schema ``jsonschema_rs`` is tried first; with a long list of labels it takes a hundredth of
    the time. It is not used for other schemas (regular expressions, fractions, references), on which the two
    validators may differ.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        from jsonschema_rs import Draft202012Validator as RustValidator

        self._validator = answer_validator(schema)
        self._quick = RustValidator(schema) if is_plain(schema) else None

    def error(self, value: Any) -> ValidationError | None:
        """Return the most relevant error in ``value``; None: it fits.

        Raises:
            ArithmeticError, RecursionError: a number is too large, or the value is nested too deeply, to be
            checked.
        """
        from jsonschema.exceptions import best_match

        if self._quick is not None and self._quick.is_valid(value):
            return None
        return best_match(self._validator.iter_errors(value))

    def errors(self, answer: str) -> int:
        """Return the number of errors in ``answer``; 1 if it cannot be parsed or checked."""
        try:
            value = parse(answer)
            if self._quick is not None and self._quick.is_valid(value):
                return 0
            return sum(1 for _ in self._validator.iter_errors(value))
        except (Unparsed, RecursionError, ArithmeticError):
            return 1

    def fits(self, answer: str) -> bool:
        """Return whether ``answer`` parses and fits. An answer that is nested too deeply to be checked, or
        has too large a number, does not fit."""
        try:
            value = parse(answer)
            if self._quick is not None and self._quick.is_valid(value):
                return True
            return self._validator.is_valid(value)
        except (Unparsed, RecursionError, ArithmeticError):
            return False


def is_plain(schema: Any) -> bool:
    """Return whether ``schema`` uses only keywords on which all validators agree."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict):
        return False
    known = cast("dict[str, Any]", schema)
    if not known.keys() <= _PLAIN:
        return False
    named = [*known.get("enum", ()), known.get("const")]
    inner = [*known.get("properties", {}).values()]
    inner += [known[name] for name in ("items", "additionalProperties") if name in known]
    return all(value is None or isinstance(value, str | bool) for value in named) and all(
        map(is_plain, inner)
    )


@cache
def _validator_class() -> Any:
    from jsonschema import Draft202012Validator, validators

    return cast("Any", validators).extend(Draft202012Validator, {"pattern": _pattern})


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not pattern_matcher(pattern).is_valid(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")
