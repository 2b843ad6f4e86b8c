"""Texts on the terminal: tables whose ids are never shortened, times, and what others wrote."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    pass

GAP = "  "
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Characters that control a terminal (ECMA-48's C0 and C1), or the direction of what follows (UAX #9)."""
LEAST = 12
"""The width below which no column is shortened."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, shorten: Sequence[str] = ()) -> int:
    """Print ``rows`` below ``columns``; return their number.

    On a terminal the columns in ``shorten`` give way, the widest first, until a line fits. Elsewhere, and in
    all other columns, nothing is shortened, so that what is printed can be copied.
    """
    cells = [[flat(value) for value in row] for row in rows]
    lines = [[column.upper() for column in columns], *cells]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    if sys.stdout.isatty():
        _give_way(widths, [place for place, column in enumerate(columns) if column in shorten])
    for line in lines:
        fitted = [_fitted(cell, width) for cell, width in zip(line, widths, strict=True)]
        print(GAP.join(cell.ljust(width) for cell, width in zip(fitted, widths, strict=True)).rstrip())
    return len(cells)


def _give_way(widths: list[int], places: Sequence[int]) -> None:
    """Take from the widest of ``places`` until a line of ``widths`` fits the terminal."""
    over = sum(widths) + len(GAP) * (len(widths) - 1) - shutil.get_terminal_size().columns
    while over > 0 and places and max(widths[place] for place in places) > LEAST:
        widths[max(places, key=widths.__getitem__)] -= 1
        over -= 1


def _fitted(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


def flat(value: Any) -> str:
    """Return ``value`` on one line: a time in the local zone, a number with separators, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, datetime):
        return moment(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, tuple | list):
        return ", ".join(map(flat, value))
    return " ".join(printable(str(value)).split())


def moment(at: datetime) -> str:
    """Return a time in the local zone, to the second."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S")


def printable(text: str) -> str:
    """Return ``text`` without characters that control a terminal, because models and customers may write
    anything."""
    return CONTROLS.sub("\ufffd", text)


def print_facts(facts: Iterable[tuple[str, Any]]) -> None:
    """Print one line for each fact that there is: its name and its value."""
    found = [(name, flat(value)) for name, value in facts]
    width = max((len(name) for name, value in found if value), default=0)
    for name, value in found:
        if value:
            print(f"{name:{width}}  {value}")
