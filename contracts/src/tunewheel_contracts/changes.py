"""What differs between two documents, by dotted path."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

Change = tuple[Any, Any]
"""Before and after; None where a document has no such path."""


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Change]:
    """Return what differs. A mapping is compared value by value, a list as a whole."""
    one, other = dict(_leaves(before)), dict(_leaves(after))
    return {n: (one.get(n), other.get(n)) for n in {**one, **other} if one.get(n) != other.get(n)}


def _leaves(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, Mapping) and value:
            inner = cast("Mapping[str, Any]", value)
            yield from ((f"{name}.{path}", leaf) for path, leaf in _leaves(inner))
        else:
            yield name, value
