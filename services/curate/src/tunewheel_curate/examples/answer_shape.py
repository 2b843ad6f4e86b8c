"""Reads from a JSON Schema what it says about each part of an answer, through references and combinations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from referencing import Registry
from referencing.exceptions import Unresolvable
from referencing.jsonschema import DRAFT202012
from tunewheel_contracts.formats.spec import TaskSpec

if TYPE_CHECKING:
    from referencing._core import Resolver

_COMBINATIONS = ("allOf", "anyOf", "oneOf")
_CONSEQUENCES = ("then", "else")


class AnswerShape:
    """All schemas that apply to an answer, or to one part of it; see ``shape_of``."""

    def __init__(self, parts: tuple[dict[str, Any], ...], source: _Source) -> None:
        self.parts = parts
        """The schemas that apply to the value."""
        self._source = source
        self._members: dict[str, AnswerShape] = {}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The properties that are named, in their order, each once."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.get("properties", {})))

    def member(self, name: str) -> AnswerShape:
        """Return the shape of an object's property ``name``."""
        if name not in self.names:
            return self._other_member
        if name not in self._members:
            named = [part["properties"][name] for part in self.parts if name in part.get("properties", {})]
            self._members[name] = self._source.shape(named)
        return self._members[name]

    @cached_property
    def _other_member(self) -> AnswerShape:
        return self._source.shape([part.get("additionalProperties") for part in self.parts])

    def item(self, place: int) -> AnswerShape:
        """Return the shape of an array's item at ``place``."""
        said: list[Any] = []
        for part in self.parts:
            first = part.get("prefixItems", [])
            said.append(first[place] if place < len(first) else part.get("items"))
        return self._source.shape(said)


def shape_of(schema: dict[str, Any]) -> AnswerShape:
    """Return the shape of ``schema``, which has passed ``check_output_schema``.

    Dynamic references are not followed, nor are references relative to a nested ``$id``.
    """
    return _Source(schema).shape([schema])


def shape_of_answers(task: TaskSpec) -> AnswerShape | None:
    """Return the shape of the answers to ``task``; None: answers are free text."""
    return None if task.output_schema is None else shape_of(task.output_schema)


def words_of(schema: Any) -> frozenset[str]:
    """Return the names of properties and the listed values in ``schema``: the project's words."""
    if isinstance(schema, list):
        return frozenset().union(*map(words_of, schema))
    if not isinstance(schema, dict):
        return frozenset()
    named, listed = schema.get("properties"), schema.get("enum")
    values = [*(listed if isinstance(listed, list) else ()), schema.get("const")]
    words = {str(value) for value in values if isinstance(value, str) or type(value) is int}
    words.update(named if isinstance(named, dict) else ())
    return frozenset(words).union(*map(words_of, schema.values()))


class _Source:
    """One whole schema. It is kept alive so that its parts can be identified by ``id()``."""

    def __init__(self, schema: dict[str, Any]) -> None:
        registry: Registry[Any] = Registry()
        self._resolver: Resolver[Any] = registry.resolver_with_root(DRAFT202012.create_resource(schema))
        self._shapes: dict[tuple[int, ...], AnswerShape] = {}

    def shape(self, schemas: Sequence[Any]) -> AnswerShape:
        key = tuple(map(id, schemas))
        if key not in self._shapes:
            parts = tuple(part for schema in schemas for part in self._follow(schema, set()))
            self._shapes[key] = AnswerShape(parts, self)
        return self._shapes[key]

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
