"""What an answer says in words and numbers, whatever its form."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, cast

from tunewheel_contracts.formats.dataset import ChatMessage

from tunewheel_outputs.parsing import Unparsed, parse


def said_before(messages: Iterable[ChatMessage]) -> str:
    """Return all that was said, the system prompt apart, as one text."""
    return "\n\n".join(message.content for message in messages if message.role != "system")


def spoken(answer: str) -> list[str]:
    """Return the texts of an answer: the values of one that is JSON, keys left out, else all of it."""
    try:
        value = parse(answer)
    except Unparsed:
        return [answer]
    return [_text(leaf) for _, leaf in leaves(value) if leaf is not None]


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the path and value of all in ``value``, as ``parse`` returned it, that is no object or list."""
    if isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(cast("list[Any]", value)):
            yield from leaves(inner, (*path, place))
    else:
        yield path, value


def _text(leaf: Any) -> str:
    return leaf if isinstance(leaf, str) else f"{leaf:.15g}" if isinstance(leaf, float) else str(leaf)
