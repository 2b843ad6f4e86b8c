"""Lines with a size and a place become headings, paragraphs, lists and tables."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from tunewheel_contracts.formats.document import DocumentSection

from tunewheel_ingest.parsing.markdown import HeadingPath

HEADING_RATIO = 1.12
"""A line this much larger than the text is a heading."""
LONGEST_HEADING = 200
PARAGRAPH_GAP = 0.6
"""Of the line's size: a larger gap than this begins a paragraph."""
RUNNING_PAGES = 3
_DIGITS = re.compile(r"\d+")
_BULLET = re.compile(r"[•‣▪▸●○◦∙·\u2013*-]\s+")
_NUMBERED = re.compile(r"\d{1,3}[.)]\s")
_SENTENCE_END = (".", "!", "?", ":", "。", "؟")


@dataclass(frozen=True, slots=True)
class PdfLine:
    """One line of text; lengths are points from the page's top left corner."""

    page: int
    top: float
    bottom: float
    left: float
    size: float
    text: str
    at_edge: bool = False
    """In the margin where running headers and page numbers stand."""


@dataclass(frozen=True, slots=True)
class PdfTable:
    page: int
    top: float
    rows: tuple[tuple[str, ...], ...]


@dataclass(slots=True)
class _Block:
    kind: str
    """``heading``, ``paragraph``, ``item`` or ``table``."""
    page: int
    text: str
    level: int = 0
    last: PdfLine | None = None


@dataclass(slots=True)
class _Sections:
    """Collects blocks as Markdown and as sections."""

    path: HeadingPath = field(default_factory=HeadingPath)
    markdown: list[str] = field(default_factory=list[str])
    done: list[DocumentSection] = field(default_factory=list[DocumentSection])
    prose: list[str] = field(default_factory=list[str])
    page: int = 1

    def add(self, block: _Block) -> None:
        if block.kind == "heading":
            self.close()
            self.path.enter(block.level, block.text)
            self.markdown.append(f"{'#' * block.level} {block.text}")
            return
        self.markdown.append(block.text)
        if block.kind == "table":
            self.close()
            section = DocumentSection(path=self.path.names, text=block.text, kind="table", page=block.page)
            self.done.append(section)
            return
        if not self.prose:
            self.page = block.page
        self.prose.append(block.text)

    def close(self) -> None:
        if self.prose:
            text = _joined(self.prose)
            self.done.append(DocumentSection(path=self.path.names, text=text, page=self.page))
            self.prose = []


def lay_out(pieces: Sequence[PdfLine | PdfTable], pages: int) -> tuple[str, tuple[DocumentSection, ...]]:
    """Return (Markdown, sections) of pieces in reading order, running headers and page numbers left out."""
    running = _running(pieces, pages)
    kept = [piece for piece in pieces if not (isinstance(piece, PdfLine) and _running_key(piece) in running)]
    levels = _heading_levels([piece for piece in kept if isinstance(piece, PdfLine)])
    sections = _Sections()
    for block in _blocks(kept, levels):
        sections.add(block)
    sections.close()
    return _joined(sections.markdown), tuple(sections.done)


def table_markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as a GFM table, the first as its header."""
    width = max(map(len, rows))
    cells = [[cell.replace("|", "\\|") for cell in row] + [""] * (width - len(row)) for row in rows]
    cells.insert(1, ["---"] * width)
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _running_key(line: PdfLine) -> str:
    return _DIGITS.sub("#", line.text) if line.at_edge else ""


def _running(pieces: Sequence[PdfLine | PdfTable], pages: int) -> set[str]:
    """Return what stands in the margin of at least half of the pages, numbers aside."""
    seen: dict[str, set[int]] = defaultdict(set)
    for piece in pieces:
        if isinstance(piece, PdfLine) and piece.at_edge:
            seen[_running_key(piece)].add(piece.page)
    return {key for key, where in seen.items() if len(where) >= max(RUNNING_PAGES, pages / 2)}


def _heading_levels(lines: Sequence[PdfLine]) -> dict[float, int]:
    """Return the level of each size that headings have: the largest is 1, at most 6."""
    written: Counter[float] = Counter()
    for line in lines:
        written[line.size] += len(line.text)
    if not written:
        return {}
    body = min(written, key=lambda size: (-written[size], size))
    sizes = {
        line.size for line in lines if line.size > body * HEADING_RATIO and len(line.text) <= LONGEST_HEADING
    }
    return {size: min(level, 6) for level, size in enumerate(sorted(sizes, reverse=True), 1)}


def _blocks(pieces: Sequence[PdfLine | PdfTable], levels: dict[float, int]) -> list[_Block]:
    blocks: list[_Block] = []
    for piece in pieces:
        if isinstance(piece, PdfTable):
            blocks.append(_Block("table", piece.page, table_markdown(piece.rows)))
            continue
        level = levels.get(piece.size, 0) if len(piece.text) <= LONGEST_HEADING else 0
        last = blocks[-1] if blocks else None
        if last is not None and _continues(last, piece, level):
            last.text = _run_on(last.text, piece.text)
            last.last = piece
            continue
        kind, text = ("heading", piece.text) if level else _prose(piece.text)
        blocks.append(_Block(kind, piece.page, text, level, piece))
    return blocks


def _prose(text: str) -> tuple[str, str]:
    bullet = _BULLET.match(text)
    if bullet:
        return "item", f"- {text[bullet.end() :]}"
    return ("item" if _NUMBERED.match(text) else "paragraph"), text


def _continues(block: _Block, line: PdfLine, level: int) -> bool:
    """Whether ``line`` goes on with what ``block`` says."""
    last = block.last
    if last is None or block.level != level or last.size != line.size:
        return False
    if level:
        return line.page == last.page and line.top - last.bottom <= PARAGRAPH_GAP * line.size
    if _prose(line.text)[0] == "item":
        return False
    if line.page != last.page:
        return not last.text.endswith(_SENTENCE_END) and line.text[:1].islower()
    if block.kind == "item" and line.left < last.left - 1 and last.text.endswith(_SENTENCE_END):
        return False
    return line.top - last.bottom <= PARAGRAPH_GAP * line.size


def _run_on(text: str, more: str) -> str:
    """Join two lines; a word that was divided at the line's end is made whole."""
    if text.endswith("-") and more[:1].islower() and text[-2:-1].isalpha():
        return text[:-1] + more
    return f"{text} {more}"


def _joined(blocks: Sequence[str]) -> str:
    """Join blocks by blank lines, the items of a list by line ends."""
    parts: list[str] = []
    for number, block in enumerate(blocks):
        if number:
            parts.append("\n" if _is_item(block) and _is_item(blocks[number - 1]) else "\n\n")
        parts.append(block)
    return "".join(parts)


def _is_item(block: str) -> bool:
    return block.startswith("- ") or _NUMBERED.match(block) is not None
