"""From the format that a client asks for to the source of a grammar; what cannot be kept is refused by name.

Objects have their properties in the order of the schema. Between two parts of a JSON text may stand one
space, or a line break with up to sixteen spaces: a model that only repeats white space cannot use up its
budget.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tunewheel_generation.constraint import Grammar, Grammars, InvalidGrammar

from tunewheel_engine.errors import Refused

LARGEST_SCHEMA = 64 << 10
"""Bytes of a schema, written without white space."""
_OPTIONS = {
    "whitespace_pattern": r"(\x20|\x0A\x20{0,16})",
    "coerce_one_of": False,
    "lenient": False,
}
"""https://github.com/guidance-ai/llguidance/blob/main/docs/json_schema.md, "whitespace handling"."""
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
"""How llguidance's reasons begin, and the keyword that they are about."""
_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
"""Keywords whose value has names of the schema's author for keys."""


def json_object() -> dict[str, Any]:
    """The schema of any JSON object."""
    return dict(_ANY_OBJECT)


def json_source(schema: Mapping[str, Any], *, param: str) -> str:
    """The grammar of what ``schema`` describes. Raises Refused for a schema that is too large."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_json_schema(_with_options(schema, param=param))


def inline_json(schema: Mapping[str, Any], *, param: str) -> str:
    """``schema`` as a part of a Lark grammar. Raises Refused."""
    return "%json " + _with_options(schema, param=param)


def regex_source(pattern: str) -> str:
    """The grammar of what ``pattern`` matches as a whole."""
    from llguidance import LLMatcher

    return LLMatcher.grammar_from_regex(pattern)


def _with_options(schema: Mapping[str, Any], *, param: str) -> str:
    """``schema`` as JSON, with our settings of llguidance in the place of the client's. Raises Refused."""
    try:
        size = len(json.dumps(schema, separators=(",", ":")))
    except RecursionError as error:
        raise Refused(f"{param} is nested too deeply; flatten it", param=param) from error
    if size > LARGEST_SCHEMA:
        raise Refused(f"{param} has {size} bytes; {LARGEST_SCHEMA} are served", param=param)
    return json.dumps({**schema, "x-guidance": _OPTIONS})


def compile_or_refuse(grammars: Grammars, source: str, *, schema: Mapping[str, Any], param: str) -> Grammar:
    """The grammar of ``source``. Raises Refused, which names the keyword of ``schema`` at fault."""
    try:
        return grammars.compile(source)
    except InvalidGrammar as error:
        at = _path(schema, _keyword(error.reason), error.reason)
        raise Refused(f"{param}{at} is not served ({error.reason}); change it", param=param + at) from error


def _keyword(reason: str) -> str | None:
    """The keyword that llguidance's ``reason`` is about, where it can be told."""
    if found := re.search(r'Unimplemented keys: \["([^"]+)"', reason):
        return found[1]
    return next((keyword for begin, keyword in _REASONS.items() if reason.startswith(begin)), None)


def _path(schema: Mapping[str, Any], keyword: str | None, reason: str) -> str:
    """Where ``keyword`` stands in ``schema``: ``.properties.age.not``; empty when it does not.

    Where it stands several times: the first one whose value ``reason`` quotes, or else the first.
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
