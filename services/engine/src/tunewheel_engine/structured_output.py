"""Turns the output format that a client asks for into the source of a grammar.

A schema that the grammar cannot enforce is refused, and the error names the keyword.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunewheel_generation.constraint import (
    LARGEST_SCHEMA,
    Grammar,
    Grammars,
    InvalidGrammar,
    guided,
    json_grammar,
    schema_bytes,
)

from tunewheel_engine.errors import Refused

_ANY_OBJECT = {"type": "object"}
_REASONS = {
    "Resource '": "$ref",
    "Pointer '": "$ref",
    "regex parse error": "pattern",
    "Invalid type": "type",
    "Unknown format": "format",
    "oneOf": "oneOf",
    "min/maxProperties": "minProperties",
}
"""Beginnings of llguidance's error messages, and the JSON Schema keyword that each is about."""
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value is an object with keys that the schema's author chose."""


def json_object() -> dict[str, Any]:
    """Return the schema that any JSON object satisfies."""
    return dict(_ANY_OBJECT)


def json_source(schema: Mapping[str, Any], *, param: str) -> str:
    """Return the source of a grammar for ``schema``. Raises Refused for a schema that is too large."""
    _check_size(schema, param=param)
    return json_grammar(schema)


def inline_json(schema: Mapping[str, Any], *, param: str) -> str:
    """Return ``schema`` as a part of a Lark grammar. Raises Refused."""
    _check_size(schema, param=param)
    return "%json " + guided(schema)


def regex_source(pattern: str) -> str:
    """Return the source of a grammar for texts that ``pattern`` matches as a whole."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_regex(pattern)


def _check_size(schema: Mapping[str, Any], *, param: str) -> None:
    try:
        size = schema_bytes(schema)
    except RecursionError as error:
        raise Refused(f"{param} is nested too deeply; flatten it", param=param) from error
    if size > LARGEST_SCHEMA:
        raise Refused(f"{param} has {size} bytes; send at most {LARGEST_SCHEMA}", param=param)


def compile_or_refuse(grammars: Grammars, source: str, *, schema: Mapping[str, Any], param: str) -> Grammar:
    """Compile ``source``. Raises Refused, whose ``param`` leads to the keyword of ``schema`` at fault."""
    try:
        return grammars.compile(source)
    except InvalidGrammar as error:
        at = _path(schema, _keyword(error.reason), error.reason)
        raise Refused(
            f"{param}{at} is not supported ({error.reason}); change it", param=param + at
        ) from error


def _keyword(reason: str) -> str | None:
    """Return the keyword that llguidance's ``reason`` is about; None where it is unknown."""
    if found := re.search(r'Unimplemented keys: \["([^"]+)"', reason):
        return found[1]
    return next((keyword for begin, keyword in _REASONS.items() if reason.startswith(begin)), None)


def _path(schema: Mapping[str, Any], keyword: str | None, reason: str) -> str:
    """Return the path of ``keyword`` in ``schema``, such as ``.properties.age.not``; "" where it does not
    occur.

    If it occurs several times, the first one whose value ``reason`` quotes is meant, or else the first.
    """
    places: list[tuple[bool, str]] = []
    waiting: list[tuple[Any, str, bool]] = [(schema, "", False)]
    while keyword is not None and waiting:
        node, path, names = waiting.pop(0)
        if isinstance(node, list):
            waiting += [(one, f"{path}[{at}]", False) for at, one in enumerate(node)]
        elif isinstance(node, dict):
            if keyword in node and not names:
                places.append((str(node[keyword]).lstrip("#") not in reason, f"{path}.{keyword}"))
            waiting += [(one, f"{path}.{key}", key in _MAPS and not names) for key, one in node.items()]
    return min(places, key=lambda place: place[0], default=(True, ""))[1]
