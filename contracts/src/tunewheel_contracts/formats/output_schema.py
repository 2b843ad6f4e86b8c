"""Checks the JSON Schema in ``task.output_schema``, by which ``tunewheel_outputs`` checks answers."""

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
    """Return a function that searches texts for a schema's ``pattern`` in linear time.

    Answers are untrusted, and Python's engine takes exponential time on some texts. So Rust's engine is used.

    Raises:
        jsonschema_rs.ValidationError: the engine does not support the pattern.
    """
    from jsonschema_rs import Draft202012Validator, RegexOptions

    return Draft202012Validator({"pattern": pattern}, pattern_options=RegexOptions())


def check_output_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``schema`` if it is a JSON Schema (2020-12), refers to nothing outside itself, and can be
    checked in linear time.

    Raises:
        PydanticCustomError, ValueError: it is not. The message names the place and the reason.
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
        for sample in _SAMPLES:  # A schema with endless self-reference fails on any sample.
            validator.is_valid(sample)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        reason = f"is not JSON Schema 2020-12: {error.message}; correct it"
        raise (inconsistent(where, reason) if where else ValueError(reason)) from error
    except RecursionError as error:
        raise ValueError("refers to itself endlessly, or is nested too deeply; make it flatter") from error
    return schema


@cache
def _without_patterns() -> Any:
    """Return a validator that ignores patterns, because Python's engine does not support all of them."""
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
            "uses patternProperties, which cannot be checked in linear time; name the properties, or "
            "restrict their names by propertyNames"
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
            f"has the pattern {pattern!r}, which a linear-time engine does not support; write it without "
            "look-around and back-references"
        ) from error


OutputSchema = Annotated[JsonObject, AfterValidator(check_output_schema)]
