"""Compares two documents, and returns the differences by dotted path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

Change = tuple[Any, Any]
"""The value before and after; None where a document lacks the path."""


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Change]:
    """Return the differences. Mappings are compared value by value, lists as a whole."""
    one, other = dict(leaves(before)), dict(leaves(after))
    return {n: (one.get(n), other.get(n)) for n in {**one, **other} if one.get(n) != other.get(n)}


def leaves(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the values of a document by dotted path. Lists are values."""
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            inner = cast("Mapping[str, Any]", value)
            yield from ((f"{name}.{path}", leaf) for path, leaf in leaves(inner))
        else:
            yield name, value
