"""Reads the label of an answer."""

from __future__ import annotations

from typing import Any

from tunewheel_outputs.parsing import Unparsed, parse, same


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING = _Missing()
"""The answer has no label. Not ``None``, because a label may be JSON's null."""


def label_of(answer: str, label_field: str) -> Any:
    """Return the label of ``answer``; ``MISSING`` if it is not a JSON object with that field."""
    try:
        value = parse(answer)
    except Unparsed:
        return MISSING
    return value.get(label_field, MISSING) if isinstance(value, dict) else MISSING


def same_label(answer: str, expected: str, label_field: str) -> bool:
    """Return whether both answers have a label, and the labels are the same JSON value."""
    left, right = label_of(answer, label_field), label_of(expected, label_field)
    return MISSING not in (left, right) and same(left, right)
