"""Whether an answer fits its schema, at a cost that a hundred thousand answers can bear."""

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
    """Return what checks answers by ``schema`` (JSON Schema 2020-12), which ``check_output_schema`` let pass.

    References outside it are never fetched. Patterns run on a linear-time engine: answers come from outside.
    """
    from referencing import Registry

    registry: Registry[Any] = Registry()
    return _validator_class()(schema, registry=registry)


class SchemaCheck:
    """One project's schema, by which curation, evaluation and drift go alike.

    Of a plain schema ``jsonschema_rs`` is asked first, a hundredth of the cost for a list of many labels. Of
    others (regular expressions, fractions, references) the two need not think alike, and it is not.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        from jsonschema_rs import Draft202012Validator as RustValidator

        self._validator = answer_validator(schema)
        self._quick = RustValidator(schema) if is_plain(schema) else None

    def error(self, value: Any) -> ValidationError | None:
        """Return what is wrong with ``value``, the most telling of several, or None.

        Raises:
            ArithmeticError, RecursionError: a number is too large, or it is nested too deep, to be checked.
        """
        from jsonschema.exceptions import best_match

        if self._quick is not None and self._quick.is_valid(value):
            return None
        return best_match(self._validator.iter_errors(value))

    def errors(self, answer: str) -> int:
        """Return how many complaints there are of ``answer``; one where it cannot be read or checked."""
        try:
            value = parse(answer)
            if self._quick is not None and self._quick.is_valid(value):
                return 0
            return sum(1 for _ in self._validator.iter_errors(value))
        except (Unparsed, RecursionError, ArithmeticError):
            return 1

    def fits(self, answer: str) -> bool:
        """True when ``answer`` parses and fits. One that is nested too deep, or holds a number too large, for
        the schema to be checked does not.
        """
        try:
            value = parse(answer)
            if self._quick is not None and self._quick.is_valid(value):
                return True
            return self._validator.is_valid(value)
        except (Unparsed, RecursionError, ArithmeticError):
            return False


def is_plain(schema: Any) -> bool:
    """Tell whether ``schema`` asks only for what every validator understands alike."""
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
