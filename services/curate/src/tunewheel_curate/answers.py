"""Answers that are JSON, read alike by whatever looks at them.

An answer comes as text from outside: what its JSON says may be a character that no file holds (half a
surrogate pair, where somebody cut an emoji in two) or nested deeper than Python goes. To whoever reads it
here it is then no JSON, and ends no build.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

DEEPEST = 100
"""Levels of arrays and objects in an answer."""


def parse_answer(text: str) -> Any:
    """Parse JSON that can be judged and written again: no infinite numbers, no halves of surrogate pairs, no
    more than ``DEEPEST`` levels. How deep Python itself can go depends on where it is called from, and a
    version must not.

    Raises:
        ValueError: it is no such JSON.
        RecursionError: nor can it be parsed.
    """
    value = _DECODER.decode(text)
    if text.count("[") + text.count("{") > DEEPEST and _is_deeper(value, DEEPEST):
        raise ValueError(f"is nested deeper than {DEEPEST} levels")
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()  # raises a ValueError on half a pair
    return value


def _is_deeper(value: Any, levels: int) -> bool:
    row = [value]
    for _ in range(levels):
        row = [item for part in row if isinstance(part, dict | list) for item in _items(part)]
    return any(isinstance(item, dict | list) for item in row)


def _items(part: dict[str, Any] | list[Any]) -> Iterable[Any]:
    return part.values() if isinstance(part, dict) else part


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise ValueError(f"{digits} is too large a number")
    return number


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


# Made once: json.loads makes one for every call that asks for something of its own.
_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_float=_finite)
