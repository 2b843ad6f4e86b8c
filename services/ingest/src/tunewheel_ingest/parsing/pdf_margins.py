"""Removes running headers, page numbers and tables of contents from pages."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tunewheel_ingest.parsing.pdf_pieces import PdfLine, Piece

RUNNING_PAGES = 3
"""A text in the margin of so many consecutive pages, or of every other page, is a running header."""
LEADER_DOTS = 3
_DIGITS = re.compile(r"\d+")
_ROMAN = re.compile(r"[ivxl]{1,7}")


def without_margins(pieces: Sequence[Piece]) -> list[Piece]:
    """Return the pieces without running headers, page numbers and the lines of a table of contents."""
    edge = [piece for piece in pieces if isinstance(piece, PdfLine) and piece.at_edge]
    running, numbering = _running(edge), _numbering(edge)
    return [
        piece
        for piece in pieces
        if not isinstance(piece, PdfLine)
        or not (
            _is_contents(piece.text)
            or (piece.at_edge and (_key(piece) in running or _is_number(piece, numbering)))
        )
    ]


def _running(edge: Iterable[PdfLine]) -> set[str]:
    """Return the texts that the margins of neighbouring pages repeat, ignoring numbers."""
    seen: dict[str, set[int]] = defaultdict(set)
    for line in edge:
        seen[_key(line)].add(line.page)
    return {
        key
        for key, pages in seen.items()
        if any(
            all(page + step * n in pages for n in range(RUNNING_PAGES)) for page in pages for step in (1, 2)
        )
    }


def _numbering(edge: Iterable[PdfLine]) -> set[int]:
    """Return the differences between printed page numbers and the position of the page in the file, if enough
    margins show one."""
    pages: dict[int, set[int]] = defaultdict(set)
    for line in edge:
        for offset in _offsets(line):
            pages[offset].add(line.page)
    counts = Counter({offset: len(where) for offset, where in pages.items()})
    return {offset for offset, count in counts.items() if count >= RUNNING_PAGES}


def _is_number(line: PdfLine, numbering: set[int]) -> bool:
    return not numbering.isdisjoint(_offsets(line)) or _ROMAN.fullmatch(line.text) is not None


def _offsets(line: PdfLine) -> set[int]:
    """Return, for a number at either end of the line, its difference from the page's position in the file."""
    words = line.text.split()
    ends = {words[0], words[-1]} if words else set[str]()
    return {int(word) - line.page for word in ends if word.isascii() and word.isdigit() and len(word) < 6}


def _key(line: PdfLine) -> str:
    return _DIGITS.sub("#", line.text)


def _is_contents(text: str) -> bool:
    """Whether a line has leader dots and a page number, as in "2.1 Syntax . . . . . 7"."""
    words = text.rstrip("0123456789ivxlc ")
    leader = words[len(words.rstrip(". ")) :]
    return leader.count(".") > LEADER_DOTS and words != text
