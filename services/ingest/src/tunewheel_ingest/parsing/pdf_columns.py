"""Orders a page with two columns, so that one column is read after the other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

from tunewheel_ingest.parsing.pdf_pieces import WORD_GAP, Piece

Line = dict[str, Any]
"""A line as pdfplumber returns it: text, x0, x1, top, bottom, chars; lengths are in points."""
RUN_GAP = 0.8
"""In units of the font size: characters further apart than this belong to different columns."""
MIDDLE = (0.35, 0.65)
"""As fractions of the page's width: where the gutter between two columns can be."""
STEP = 2.0
FEWEST_LINES = 8
MOST_CROSSING = 0.3
"""The largest share of lines that cross the gutter: titles, abstracts, page numbers."""
FILLED = 0.12
"""As a fraction of the page's width: how near to the gutter the left column's lines must end. In a list of
names and values they end anywhere, so such a list is read across."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where a page is divided into columns. ``gutter`` None: it has one column."""

    gutter: float | None

    @classmethod
    def of(cls, lines: Sequence[Line], width: float) -> Columns:
        """Find the gutter of a page of this ``width``, if it has one."""
        runs = [_runs(line) for line in lines]
        if len(lines) < FEWEST_LINES:
            return cls(None)
        steps = int((MIDDLE[1] - MIDDLE[0]) * width / STEP) + 1
        places = [MIDDLE[0] * width + STEP * n for n in range(steps)]
        crossings = [sum(any(a < place < b for a, b in line) for line in runs) for place in places]
        fewest = min(crossings)
        widest = _longest_stretch([count == fewest for count in crossings])
        gutter = places[(widest[0] + widest[1]) // 2]
        left = [run[1] for line in runs for run in line if run[1] <= gutter]
        right = [run for line in runs for run in line if run[0] >= gutter]
        enough = FEWEST_LINES // 2
        if fewest > MOST_CROSSING * len(lines) or len(left) < enough or len(right) < enough:
            return cls(None)
        return cls(gutter if median(left) >= gutter - FILLED * width else None)

    def split(self, line: Line) -> list[Line]:
        """Return the line, or its parts in the two columns."""
        if self.gutter is None or any(a < self.gutter < b for a, b in _runs(line)):
            return [line]
        halves = ([], []) if not line["chars"] else _halves(line["chars"], self.gutter)
        parts = [_line_of(chars) for chars in halves if any(char["text"].strip() for char in chars)]
        return parts if len(parts) > 1 else [line]

    def order(self, pieces: Iterable[Piece]) -> list[Piece]:
        """Return the pieces in reading order. A piece across both columns separates those above and below."""
        sorted_down = sorted(pieces, key=lambda piece: piece.top)
        if self.gutter is None:
            return sorted_down
        ordered: list[Piece] = []
        left: list[Piece] = []
        right: list[Piece] = []
        for piece in sorted_down:
            if piece.left < self.gutter < piece.right:
                ordered += [*left, *right, piece]
                left, right = [], []
            else:
                (left if piece.right <= self.gutter else right).append(piece)
        return [*ordered, *left, *right]


def _runs(line: Line) -> list[tuple[float, float]]:
    """Return the intervals in which a line has text. Gaps between words do not interrupt one."""
    chars = sorted((char for char in line["chars"] if char["text"].strip()), key=lambda char: char["x0"])
    if not chars:
        return []
    runs, start = list[tuple[float, float]](), chars[0]["x0"]
    for one, two in pairwise(chars):
        if two["x0"] - one["x1"] > RUN_GAP * two["size"]:
            runs.append((start, one["x1"]))
            start = two["x0"]
    return [*runs, (start, chars[-1]["x1"])]


def _halves(chars: Sequence[Any], gutter: float) -> tuple[list[Any], list[Any]]:
    left = [char for char in chars if (char["x0"] + char["x1"]) / 2 < gutter]
    return left, [char for char in chars if (char["x0"] + char["x1"]) / 2 >= gutter]


def _line_of(chars: Sequence[Any]) -> Line:
    from pdfplumber.utils.text import extract_text

    return {
        "text": extract_text(list(chars), x_tolerance_ratio=WORD_GAP),
        "x0": min(char["x0"] for char in chars),
        "x1": max(char["x1"] for char in chars),
        "top": min(char["top"] for char in chars),
        "bottom": max(char["bottom"] for char in chars),
        "chars": chars,
    }


def _longest_stretch(flags: Sequence[bool]) -> tuple[int, int]:
    """Return the first and the last index of the longest run of True."""
    best, start = (0, -1), None
    for index, flag in enumerate([*flags, False]):
        if flag and start is None:
            start = index
        elif not flag and start is not None:
            if index - start > best[1] - best[0] + 1:
                best = (start, index - 1)
            start = None
    return best
