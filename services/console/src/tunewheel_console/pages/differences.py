"""Marks by word how two answers differ, the same way on both sides, so that the marks tell no side."""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from markupsafe import Markup, escape
from tunewheel_outputs.texts import UNSPACED

LEAST_ALIKE = 0.3
"""Marks in texts that share less would be everywhere."""
MOST_TOKENS = 4_000
"""Longer texts have no marks: the time grows faster than their length."""
_TOKEN = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])\w)+|\s+|.")


def marked(left: str, right: str) -> tuple[Markup, Markup]:
    """Return both texts for a page: what only one of them has is marked."""
    sides = [_TOKEN.findall(text) for text in (left, right)]
    plain = escape(left), escape(right)
    if max(map(len, sides)) > MOST_TOKENS:
        return plain
    matcher = SequenceMatcher(None, sides[0], sides[1])
    blocks = matcher.get_matching_blocks()
    alike = sum(_words(sides[0][one.a : one.a + one.size]) for one in blocks)
    if 2 * alike < LEAST_ALIKE * sum(map(_words, sides)):
        return plain
    shown = [Markup(), Markup()]
    for kind, *places in matcher.get_opcodes():
        for side, (begin, end) in enumerate((places[:2], places[2:])):
            text = "".join(sides[side][begin:end])
            is_marked = kind != "equal" and text.strip()
            shown[side] += Markup("<mark>{}</mark>").format(text) if is_marked else escape(text)
    return shown[0], shown[1]


def _words(tokens: list[str]) -> int:
    return sum(not token.isspace() for token in tokens)
