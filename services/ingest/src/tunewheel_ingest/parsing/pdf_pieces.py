"""The pieces of a PDF's pages: lines of text and tables, each with its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WORD_GAP = 0.15
"""In units of the font size: a wider gap between characters is a space. pdfplumber's default of 3 points
would join the words of justified text, where a space may be a fifth of the font size."""


@dataclass(frozen=True, slots=True)
class PdfLine:
    """One line of text. Lengths are in points from the page's top left corner."""

    page: int
    top: float
    bottom: float
    left: float
    right: float
    size: float
    text: str
    at_edge: bool = False
    """Whether it is in the margin of running headers and page numbers."""
    font: str = ""
    """The font of nearly the whole line; empty if the fonts are mixed."""
    advance: float = 0.0
    """Mean width of a character."""


@dataclass(frozen=True, slots=True)
class PdfTable:
    page: int
    top: float
    left: float
    right: float
    rows: tuple[tuple[str, ...], ...]


Piece = PdfLine | PdfTable


def table_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a GFM table, the first as its header."""
    width = max(map(len, rows))
    cells = [[cell.replace("|", "\\|") for cell in row] + [""] * (width - len(row)) for row in rows]
    cells.insert(1, ["---"] * width)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)
