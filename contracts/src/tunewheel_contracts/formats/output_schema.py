"""What may stand in ``task.output_schema``, and the one way in which services check answers with it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import AfterValidator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import JsonObject

if TYPE_CHECKING:
    from jsonschema import ValidationError
    from jsonschema.protocols import Validator
    from jsonschema_rs import Draft202012Validator as Matcher
    from referencing import Resource
    from referencing._core import Resolver

_SAMPLES: tuple[Any, ...] = (None, True, 0, "", [], {})


def answer_validator(schema: dict[str, Any]) -> Validator:
    """Return what checks answers by ``schema`` (JSON Schema 2020-12), which ``check_output_schema`` let pass.

    References outside it are never fetched. Patterns run on a linear-time engine (Rust's ``regex``): answers
    come from outside, and Python's takes exponential time on some of them.
    """
    from referencing import Registry

    registry: Registry[Any] = Registry()
    return _validator_class()(schema, registry=registry)


@cache
def _validator_class() -> Any:
    from jsonschema import Draft202012Validator, validators

    known = cast("Any", validators)
    return known.extend(Draft202012Validator, {"pattern": _pattern})


def _pattern(_: Any, pattern: str, instance: Any, __: Any) -> Iterator[ValidationError]:
    from jsonschema import ValidationError

    if isinstance(instance, str) and not _matcher(pattern).is_valid(instance):
        yield ValidationError(f"{instance!r} does not match {pattern!r}")


@lru_cache(1024)
def _matcher(pattern: str) -> Matcher:
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
        validator = answer_validator(schema)
        for sample in _SAMPLES:  # one that refers to itself without end fails on any
            validator.is_valid(sample)
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        reason = f"is not JSON Schema 2020-12: {error.message}; mend it"
        raise (inconsistent(where, reason) if where else ValueError(reason)) from error
    except RecursionError as error:
        raise ValueError("refers to itself without end, or is nested too deep; make it flatter") from error
    return schema


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
        _matcher(pattern)
    except ValidationError as error:
        raise ValueError(
            f"holds the pattern {pattern!r}, which a linear-time engine does not know; write it without "
            "look-around and back-references"
        ) from error


OutputSchema = Annotated[JsonObject, AfterValidator(check_output_schema)]
