"""Documents that together use every field and every value of enumerations, made from the bundled examples."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import Any

from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

Place = tuple[str, str]
"""A field, as ``Model.field``, and one value of its enumeration; "" stands for the field itself."""
Path = tuple[str | int, ...]
"""Keys and positions that lead into a document."""
Schema = dict[str, Any]


@dataclass
class Document:
    """A document that a model accepts, and the places that it uses, each with the path of its first use.

    A model within the document is a place too: ``(Model, "")``.
    """

    content: Any
    uses: dict[Place, Path]

    def at(self, path: Path) -> Any:
        found = self.content
        for step in path:
            found = found[step]
        return found

    def changed(self, path: Path, value: Any) -> Any:
        """Return a copy of the content that has ``value`` at ``path``."""
        content = copy.deepcopy(self.content)
        at = content
        for step in path[:-1]:
            at = at[step]
        at[path[-1]] = value
        return content


@cache
def _schema(model: type[BaseModel]) -> Schema:
    return model.model_json_schema() | {"title": model.__name__}


def places(model: type[BaseModel]) -> set[Place]:
    """Return all fields of ``model`` and of the models in it, and all values of their enumerations."""
    found, root = set[Place](), _schema(model)
    for name, schema in ((model.__name__, root), *root.get("$defs", {}).items()):
        for field, part in schema.get("properties", {}).items():
            found |= {(f"{name}.{field}", value) for value in ("", *_values(root, part))}
    return found


def document(model: type[BaseModel], content: Any) -> Document:
    """Read which places of ``model`` the document ``content`` uses."""
    found: dict[Place, Path] = {}
    _walk(_schema(model), ("", _schema(model)), content, (), found)
    return Document(content, found)


def using_everything(
    model: type[BaseModel], examples: Sequence[Document], donors: Sequence[Document] = ()
) -> list[Document]:
    """Return further documents, which use the places that ``examples`` do not.

    Each further document is a copy of an earlier document with one place more. The value at that place comes
    from a donor, which may be a document of another model, or else from the schema. Places that ``model``
    refuses with all these values stay unused.
    """
    made = list(examples)
    count = -1
    while count != len(made):  # A model that was put in has fields that were out of reach before.
        count = len(made)
        for place in sorted(places(model).difference(*(one.uses for one in made))):
            made += islice(_with(model, place, made, donors), 1)
    return made[len(examples) :]


def _with(
    model: type[BaseModel], place: Place, documents: Sequence[Document], donors: Sequence[Document]
) -> Iterator[Document]:
    """Yield changed ``documents`` that use ``place``: its field has another value, or its model has."""
    owner, _, field = place[0].partition(".")
    root = _schema(model)
    schema = root if owner == model.__name__ else root["$defs"][owner]
    given = [one for one in donors if place in one.uses]
    values = [one.at((*one.uses[owner, ""], field)) for one in given if field in one.at(one.uses[owner, ""])]
    values += _candidates(root, schema["properties"][field], place[1])
    models = [one.at(one.uses[place][: one.uses[place].index(field)]) for one in given]
    models += [least | {field: value} for least in _objects(root, schema, 0) for value in values]
    for one in documents:
        if (path := one.uses.get((owner, ""))) is None:
            continue
        tries = [((*path, field), value) for value in values] + [(path, value) for value in models if path]
        for at, value in tries:
            changed = document(model, one.changed(at, value))
            if place in changed.uses and _accepts(model, changed.content):
                yield changed


def _accepts(model: type[BaseModel], content: Any) -> bool:
    try:
        model.model_validate(content)
    except ValidationError:
        return False
    return True


def _candidates(root: Schema, schema: Schema, value: str = "", depth: int = 0) -> Iterator[Any]:
    """Yield values that ``schema`` allows; with ``value``, only that value, or lists
    and maps that hold nothing else."""
    for option in _options(root, schema):
        kind = option.get("type")
        if value and kind not in ("array", "object"):
            yield from (one for one in _own(option) if str(one) == value)
        elif own := _own(option):
            yield from own
        elif kind == "array" and depth < 4:
            yield from ([one] for one in _candidates(root, option.get("items", {}), value, depth + 1))
        elif kind == "object" and "properties" in option and depth < 4:
            yield from _objects(root, option, depth)
        elif kind == "object" and (others := _others(option)):
            key = "0" if "patternProperties" in option else "name"
            yield from ({key: one} for one in _candidates(root, others, value, depth + 1))
        elif kind == "object":
            yield {"name": "value"}
        elif kind == "boolean":
            yield from (True, False)
        elif kind in ("integer", "number"):
            low = option.get("minimum", option.get("exclusiveMinimum", 0))
            high = option.get("maximum", option.get("exclusiveMaximum", low + 2))
            middle = (low + high) / 2
            yield from (int(middle) or 1, low, high, high - 1) if kind == "integer" else (middle, low, high)
        elif kind == "string":
            yield from _strings(option)


def _others(schema: Schema) -> Any:
    """Return the schema of values whose keys are no fields of a model, such as labels or partitions."""
    return next(iter(schema.get("patternProperties", {}).values()), schema.get("additionalProperties"))


def _objects(root: Schema, schema: Schema, depth: int) -> Iterator[Schema]:
    fields = schema["properties"]
    for names in (schema.get("required", ()), fields):
        first = {name: next(_candidates(root, fields[name], depth=depth + 1), None) for name in names}
        yield {name: value for name, value in first.items() if value is not None}


def _strings(schema: Schema) -> Iterator[str]:
    if schema.get("format") == "date-time":
        yield "2026-11-01T10:00:00Z"
    elif pattern := schema.get("pattern"):
        only = settings(database=None, phases=(Phase.generate,), suppress_health_check=list(HealthCheck))
        yield find(st.from_regex(pattern, fullmatch=True), lambda _: True, settings=only)
    else:
        yield from ("x" * max(1, schema.get("minLength", 1)), "https://example.org/v1", "1d", "name")


def _walk(
    root: Schema, described: tuple[str, Schema], value: Any, path: Path, found: dict[Place, Path]
) -> None:
    field, schema = described
    for option in _options(root, schema):
        if isinstance(value, dict) and value.keys() >= set(option.get("required", ())):
            parts, others = option.get("properties", {}), _others(option)
            if others is False and not value.keys() <= parts.keys():
                continue
            found.setdefault((option.get("title", ""), ""), path)
            for key, content in value.items():
                name = f"{option.get('title')}.{key}" if key in parts else field
                if key in parts and content is not None:
                    found.setdefault((name, ""), (*path, key))
                _walk(root, (name, parts.get(key, others or {})), content, (*path, key), found)
        elif isinstance(value, list):
            for number, content in enumerate(value):
                _walk(root, (field, option.get("items", {})), content, (*path, number), found)
        elif field and value in _own(option):
            found.setdefault((field, str(value)), path)


def _options(root: Schema, schema: Any) -> Iterator[Schema]:
    """Yield ``schema`` with its references followed, or each of its alternatives."""
    if not isinstance(schema, dict):
        return
    if "$ref" in schema:
        name = schema["$ref"].removeprefix("#/$defs/")
        yield from _options(root, root["$defs"][name] | {"title": name})
    elif alternatives := [part for key in ("anyOf", "oneOf", "allOf") for part in schema.get(key, ())]:
        for part in alternatives:
            yield from _options(root, part)
    else:
        yield schema


def _own(schema: Schema) -> list[Any]:
    return schema.get("enum", [schema["const"]] if "const" in schema else [])


def _values(root: Schema, schema: Schema) -> set[str]:
    found = set[str]()
    for option in _options(root, schema):
        found |= {str(value) for value in _own(option)}
        for inner in (option.get("items"), None if "properties" in option else _others(option)):
            found |= _values(root, inner)
    return found
