"""What may stand in ``task.output_schema``; ``tunewheel_outputs`` checks answers by it."""

from __future__ import annotations

from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import AfterValidator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import JsonObject

if TYPE_CHECKING:
    from jsonschema_rs import Draft202012Validator as Matcher
    from referencing import Resource
    from referencing._core import Resolver

_SAMPLES: tuple[Any, ...] = (None, True, 0, "", [], {})


@lru_cache(1024)
def pattern_matcher(pattern: str) -> Matcher:
    """Return what takes the texts in which a schema's ``pattern`` is found, in linear time.

    Answers come from outside, and Python's engine takes exponential time on some; this is Rust's.

    Raises:
        jsonschema_rs.ValidationError: the engine does not know the pattern.
    """
    from jsonschema_rs import Draft202012Validator, RegexOptions

    return Draft202012Validator({"pattern": pattern}, pattern_options=RegexOptions())


def check_output_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``schema``, if it is JSON Schema (2020-12), whole in itself, and can be checked in linear time.

    Raises:
        PydanticCustomError, ValueError: it is not; says where inside, and why.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    try:
        Draft202012Validator.check_schema(schema)
        resource: Resource[Any] = DRAFT202012.create_resource(schema)
        registry: Registry[Any] = Registry()
        _check(resource, registry.resolver_with_root(resource))
        validator = _without_patterns()(schema, registry=registry)
        for sample in _SAMPLES:  # one that refers to itself without end fails on any
            validator.is_valid(sample)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        reason = f"is not JSON Schema 2020-12: {error.message}; mend it"
        raise (inconsistent(where, reason) if where else ValueError(reason)) from error
    except RecursionError as error:
        raise ValueError("refers to itself without end, or is nested too deep; make it flatter") from error
    return schema


@cache
def _without_patterns() -> Any:
    """Return a validator that leaves patterns aside: Python's engine does not know all of them."""
    from jsonschema import Draft202012Validator, validators

    def leave(*_: Any) -> tuple[()]:
        return ()

    return cast("Any", validators).extend(Draft202012Validator, {"pattern": leave})


def _check(resource: Resource[Any], resolver: Resolver[Any]) -> None:
    contents: Any = resource.contents
    keywords = cast("dict[str, Any]", contents if isinstance(contents, dict) else {})
    for keyword in ("$ref", "$dynamicRef"):
        if keyword in keywords:
            _look_up(keywords[keyword], resolver)
    if "pattern" in keywords:
        _compile(keywords["pattern"])
    if "patternProperties" in keywords:
        raise ValueError(
            "uses patternProperties, which are not checked in linear time; name the properties, or bound "
            "their names by propertyNames"
        )
    for inner in resource.subresources():
        _check(inner, resolver.in_subresource(inner))


def _look_up(reference: str, resolver: Resolver[Any]) -> None:
    from referencing.exceptions import Unresolvable

    try:
        resolver.lookup(reference)
    except Unresolvable as error:
        raise ValueError(
            f"refers to {reference!r}, which is not in it; put the definition under $defs"
        ) from error


def _compile(pattern: str) -> None:
    from jsonschema_rs import ValidationError

    try:
        pattern_matcher(pattern)
    except ValidationError as error:
        raise ValueError(
            f"holds the pattern {pattern!r}, which a linear-time engine does not know; write it without "
            "look-around and back-references"
        ) from error


OutputSchema = Annotated[JsonObject, AfterValidator(check_output_schema)]
