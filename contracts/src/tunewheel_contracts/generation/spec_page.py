"""Generates ``docs/project-yaml.md``: every field of a project spec, by section, with its default."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.generation.catalogue import type_name
from tunewheel_contracts.generation.schemas import json_schema

PATH = "docs/project-yaml.md"

INTRODUCTION = """\
# project.yaml

<!-- Generated from the spec's models; run `python -m tunewheel_contracts.generate`. -->

Every field of a project spec, with its default. [The guide](bring-your-own-project.md) shows how to use them;
[training](training.md) explains the recipe. A field that is not listed here is refused. A section that is
left out has its defaults."""

Schema = dict[str, Any]


def spec_files() -> dict[str, str]:
    """Return text by path, relative to the repository's root."""
    root = json_schema("project-spec", ProjectSpec)
    sections = [_table("", root, root), *_sections("", root, root)]
    return {PATH: "\n".join([INTRODUCTION, "\n\n".join(sections)]).rstrip() + "\n"}


def _sections(path: str, schema: Schema, root: Schema) -> Iterator[str]:
    """Yield the sections of ``schema``, which is at the dotted ``path``. A section comes before its
    sub-sections."""
    for field, body in schema["properties"].items():
        for inner in _objects(body, root):
            place = _place(path, field, body)
            kind = inner["properties"].get("rule", {}).get("const")
            about = _words(inner)
            heading = f"## {place}" + (f", rule {kind}" if kind else "")
            yield "\n\n".join(part for part in (heading, about, _table(place, inner, root)) if part)
            yield from _sections(place, inner, root)


def _objects(body: Schema, root: Schema) -> list[Schema]:
    """Return the object schemas in a field, or in a list in it; empty for a plain value."""
    if "$ref" in body:
        found = root["$defs"][body["$ref"].rpartition("/")[2]]
        return [found] if "properties" in found else []
    inner = [*body.get("anyOf", ()), *body.get("oneOf", ())]
    if isinstance(body.get("items"), dict):
        inner.append(body["items"])
    return [found for one in inner for found in _objects(one, root)]


def _place(path: str, field: str, body: Schema) -> str:
    return f"{path}.{field}".lstrip(".") + ("[]" if body.get("type") == "array" else "")


def _table(path: str, schema: Schema, root: Schema) -> str:
    required = set(schema.get("required", ()))
    lines = ["| field | type | default | |", "|---|---|---|---|"]
    for field, body in schema["properties"].items():
        inner = _objects(body, root)
        kind = _kind(body) if inner else type_name(body, root)
        default = "required" if field in required else _default(body, plain=not inner)
        text = _words(body).replace("|", "\\|")
        if inner:
            text = f"{text} See `{_place(path, field, body)}`.".lstrip()
        lines.append(f"| `{field}` | {kind} | {default} | {text} |")
    return "\n".join(lines)


def _kind(body: Schema) -> str:
    """Return the kind of a field that has its own section."""
    return "list" if body.get("type") == "array" else "section"


def _default(body: Schema, *, plain: bool) -> str:
    value = body.get("default")
    if value is None or (value == [] and not plain):
        return "none"
    return f"`{json.dumps(value, ensure_ascii=False)}`" if plain else ""


def _words(schema: Schema) -> str:
    """Return a description as one line, with text that looks like an HTML tag escaped. Code is shown as it
    is."""
    words = " ".join(str(schema.get("description", "")).split())
    return re.sub(r"`+[^`]*`+|<", lambda found: found[0] if found[0] != "<" else "&lt;", words)
