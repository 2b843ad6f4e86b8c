"""Answers that are JSON, read alike by whatever looks at them, and as strictly as a program downstream would.

An answer comes as text from outside: what its JSON says may be a character that no file holds (half a
surrogate pair, where somebody cut an emoji in two) or nested deeper than Python goes. To whoever reads it
here it is then no JSON, and ends neither a build nor an evaluation.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any, cast

DEEPEST = 100
"""Levels of arrays and objects in an answer. How deep Python itself can go depends on where it is called
from, and neither a dataset version nor a figure must."""
_HALF = re.compile("[\ud800-\udfff]")


class Unparsed(ValueError):
    """The answer is not one JSON value."""


def parse(text: str) -> Any:
    """Return the JSON value that ``text`` is, JSON's white space around it aside.

    Fenced or chatty answers are not forgiven: whoever consumes them would have to be as forgiving.

    Raises:
        Unparsed: not one JSON value (RFC 8259), or one that cannot be written again: NaN, numbers that are
            infinite, halves of surrogate pairs, more than ``DEEPEST`` levels.
    """
    try:
        value = _DECODER.decode(text)
        if text.count("[") + text.count("{") > DEEPEST and _is_deeper(value, DEEPEST):
            raise ValueError(f"is nested deeper than {DEEPEST} levels")
        if "\\ud" in text.lower():
            json.dumps(value, ensure_ascii=False).encode()  # raises a ValueError on half a pair
        if not text.isascii():
            text.encode()
    except (ValueError, RecursionError) as error:
        raise Unparsed(str(error)) from error
    return value


def readable(text: str) -> str:
    """Return ``text`` as UTF-8 can hold it: halves of surrogate pairs become U+FFFD."""
    return text if text.isascii() else _HALF.sub("\ufffd", text)


def same(left: Any, right: Any) -> bool:
    """True for the same JSON value: ``1`` is ``1.0`` and is not ``true`` (JSON Schema 2020-12, §4.2.2)."""
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
    raise ValueError(f"{name} is no JSON")


# Made once: json.loads makes one for every call that asks for something of its own.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
