"""Parts of a scorecard's page: tables and escaped texts."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from html import escape

MOST_CHARACTERS = 4_000
"""The most characters of one text. The whole text is in the generations beside the scorecard."""
_KEPT = frozenset("\n\t")


def table(head: Sequence[str], lines: Sequence[Sequence[str]], *, tone: int | None = None) -> str:
    """Return a table. ``tone``: the column whose values are also used as style classes."""
    parts = ["<table><tr>", *(f"<th>{as_text(name)}</th>" for name in head), "</tr>"]
    for line in lines:
        parts.append("<tr>")
        for column, cell in enumerate(line):
            shown = f' class="{as_text(cell)}"' if column == tone else ""
            parts.append(f"<td{shown}>{as_text(cell)}</td>")
        parts.append("</tr>")
    return "".join([*parts, "</table>"])


def cut(text: str) -> str:
    """Return the beginning of ``text``, escaped, and how many characters were cut."""
    more = len(text) - MOST_CHARACTERS
    return as_text(text) if more <= 0 else f"{as_text(text[:MOST_CHARACTERS])}… and {more:,} more characters"


def as_text(text: str) -> str:
    """Return ``text`` escaped, with invisible characters replaced by their code."""
    plain = "".join(
        letter if letter in _KEPT or _shows(letter) else f"\\u{ord(letter):04x}" for letter in text
    )
    return escape(plain, quote=True)


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _shows(letter: str) -> bool:
    """Return whether a character is visible: no control character, no format character (such as those that
    change the direction of writing), and no half of a surrogate pair."""
    return letter == "\u200d" or unicodedata.category(letter) not in ("Cc", "Cf", "Cs")
