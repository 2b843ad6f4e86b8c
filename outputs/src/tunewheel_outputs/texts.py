"""Returns the texts in conversations and answers, both free text and JSON."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, cast

from tunewheel_contracts.formats.dataset import ChatMessage

from tunewheel_outputs.parsing import Unparsed, parse

UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai and Lao, Tibetan, Burmese, Khmer
    "\u3040-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f"  # Hiragana and Katakana
    "\u3105-\u312f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"  # Bopomofo and Han
)
"""Characters of scripts that put no spaces between words, for a set in a regular expression. Text in them is
compared by characters."""
_UNIT = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])[^\W_])+")


def words_of(text: str) -> list[str]:
    """Return the words of ``text`` in lower case, not stemmed. In scripts without spaces each character is a
    word."""
    return _UNIT.findall(text.lower())


def said_before(messages: Iterable[ChatMessage]) -> str:
    """Return the messages, without the system prompt, as one text."""
    return "\n\n".join(message.content for message in messages if message.role != "system")


def spoken(answer: str) -> list[str]:
    """Return the texts of an answer: for JSON its values without the keys, otherwise the whole answer."""
    try:
        value = parse(answer)
    except Unparsed:
        return [answer]
    return [_text(leaf) for _, leaf in leaves(value) if leaf is not None]


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield path and value of everything in ``value`` that is neither object nor list. ``value`` comes from
    ``parse``."""
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
