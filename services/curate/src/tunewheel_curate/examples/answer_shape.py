"""What a schema says of the parts of an answer: in place, by reference, or in a combination."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012

if TYPE_CHECKING:
    from referencing._core import Resolver

_COMBINATIONS = ("allOf", "anyOf", "oneOf")
_CONSEQUENCES = ("then", "else")

Parts = tuple[dict[str, Any], ...]
"""Schemas that all say something of one value."""


class AnswerShape:
    """Of a schema that ``check_output_schema`` let pass. References that nested ``$id``s change the meaning
    of are taken as the schema's own; dynamic ones are not followed."""

    def __init__(self, schema: dict[str, Any]) -> None:
        registry: Registry[Any] = Registry()
        self._resolver: Resolver[Any] = registry.resolver_with_root(DRAFT202012.create_resource(schema))
        self._parts: dict[int, Parts] = {}  # by identity: the schema, and so each part of it, stays
        self.whole = self._parts_of([schema])

    def names(self, parts: Parts) -> list[str]:
        """Return the properties that ``parts`` name, in their order, each once."""
        return list(dict.fromkeys(name for part in parts for name in part.get("properties", {})))

    def member(self, parts: Parts, name: str) -> Parts:
        """Return what ``parts``, of an object, say of its property ``name``."""
        named = [part["properties"][name] for part in parts if name in part.get("properties", {})]
        return self._parts_of(named or [part.get("additionalProperties") for part in parts])

    def item(self, parts: Parts, place: int) -> Parts:
        """Return what ``parts``, of an array, say of its item at ``place``."""
        said: list[Any] = []
        for part in parts:
            first = part.get("prefixItems", [])
            said.append(first[place] if place < len(first) else part.get("items"))
        return self._parts_of(said)

    def _parts_of(self, schemas: Sequence[Any]) -> Parts:
        return tuple(part for schema in schemas for part in self._followed(schema))

    def _followed(self, schema: Any) -> Parts:
        if not isinstance(schema, dict):
            return ()
        if id(schema) not in self._parts:
            self._parts[id(schema)] = tuple(self._follow(schema, set()))
        return self._parts[id(schema)]

    def _follow(self, schema: Any, seen: set[int]) -> Iterator[dict[str, Any]]:
        if not isinstance(schema, dict) or id(schema) in seen:
            return
        seen.add(id(schema))
        yield schema
        if "$ref" in schema:
            with contextlib.suppress(Unresolvable):  # relative to a nested ``$id``
                yield from self._follow(self._resolver.lookup(schema["$ref"]).contents, seen)
        for keyword in _COMBINATIONS:
            for inner in schema.get(keyword, ()):
                yield from self._follow(inner, seen)
        for keyword in _CONSEQUENCES:
            yield from self._follow(schema.get(keyword), seen)
