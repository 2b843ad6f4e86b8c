"""What may stand in ``task.output_schema``: a JSON Schema that every service can check an answer with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import AfterValidator

from tunewheel_contracts.errors import inconsistent
from tunewheel_contracts.fields import JsonObject

if TYPE_CHECKING:
    from referencing import Resource
    from referencing._core import Resolver


def check_output_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return ``schema``, if it is JSON Schema (2020-12) and whole in itself: no service fetches a reference.

    Raises:
        PydanticCustomError, ValueError: it is not; says where inside, and why.
    """
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError
    from referencing import Registry
    from referencing.jsonschema import DRAFT202012

    try:
        # With formats: a "pattern" that is no regular expression would fail at the first answer.
        Draft202012Validator.check_schema(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)
        resource: Resource[Any] = DRAFT202012.create_resource(schema)
        registry: Registry[Any] = Registry()
        _resolve(resource, registry.resolver_with_root(resource))
    except SchemaError as error:
        where = ".".join(map(str, error.absolute_path))
        reason = f"is not JSON Schema 2020-12: {error.message}; mend it"
        raise (inconsistent(where, reason) if where else ValueError(reason)) from error
    except RecursionError as error:
        raise ValueError("is nested too deep to be checked; make it flatter") from error
    return schema


def _resolve(resource: Resource[Any], resolver: Resolver[Any]) -> None:
    from referencing.exceptions import Unresolvable

    contents: Any = resource.contents
    references = cast("dict[str, str]", contents if isinstance(contents, dict) else {})
    for reference in (references[word] for word in ("$ref", "$dynamicRef") if word in references):
        try:
            resolver.lookup(reference)
        except Unresolvable as error:
            raise ValueError(
                f"refers to {reference!r}, which is not in it; put the definition under $defs"
            ) from error
    for inner in resource.subresources():
        _resolve(inner, resolver.in_subresource(inner))


OutputSchema = Annotated[JsonObject, AfterValidator(check_output_schema)]
