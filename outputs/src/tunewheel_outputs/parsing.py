"""Parses answers that are JSON. All code parses them here, as strictly as a program that consumes answers
would.

Answers are untrusted. Their JSON may contain half a surrogate pair (a truncated emoji), which no file can
hold, or be nested deeper than Python can handle. Such an answer counts as not JSON, so that it stops no build
and no evaluation.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, cast

DEEPEST = 100
"""Most levels of arrays and objects in an answer. Python's own limit depends on the depth of the call, and
results must not depend on that."""
_HALF = re.compile("[\ud800-\udfff]")


class Unparsed(ValueError):
    """The answer is not one JSON value."""


def parse(text: str) -> Any:
    """Return the JSON value in ``text``, which may have JSON white space around it.

    JSON in a Markdown fence or between other text is refused, because consumers of answers would have to
    accept it too. Raises Unparsed: the text is not one JSON value (RFC 8259), or the value cannot be written
    again: NaN, infinite numbers, halves of surrogate pairs, more than ``DEEPEST`` levels.
    """
    try:
        value = _DECODER.decode(text)
        if text.count("[") + text.count("{") > DEEPEST and _is_deeper(value, DEEPEST):
            raise ValueError(f"is nested deeper than {DEEPEST} levels")
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # Raises a ValueError on half a surrogate pair.
        if not text.isascii():
            text.encode()
    except (ValueError, RecursionError) as error:
        raise Unparsed(str(error)) from error
    return value


def readable(text: str) -> str:
    """Return ``text`` so that it can be encoded as UTF-8: halves of surrogate pairs become U+FFFD."""
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def same(left: Any, right: Any) -> bool:
    """Return whether two JSON values are equal: ``1`` equals ``1.0``, but not ``true`` (JSON Schema 2020-12,
    §4.2.2)."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        ours, theirs = cast("dict[str, Any]", left), cast("dict[str, Any]", right)
        return ours.keys() == theirs.keys() and all(same(ours[key], theirs[key]) for key in ours)
    if isinstance(left, list) and isinstance(right, list):
        mine, others = cast("list[Any]", left), cast("list[Any]", right)
        return len(mine) == len(others) and all(map(same, mine, others))
    return left == right


def _is_deeper(value: Any, levels: int) -> bool:
    row: list[Any] = [value]
    for _ in range(levels):
        row = [item for part in row if isinstance(part, dict | list) for item in _items(part)]
    return any(isinstance(item, dict | list) for item in row)


def _items(part: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else part


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits[:20]} is too large a number")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


# Created once: json.loads would create a decoder for every call with these options.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
