"""Turns a PDF's lines into headings, paragraphs, lists, code and tables, by their size and place. Running
headers, page numbers and tables of contents go first."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from tunewheel_contracts.formats.document import DocumentSection

from tunewheel_ingest.parsing.markdown import HeadingPath, fenced
from tunewheel_ingest.parsing.pdf_pieces import PdfLine, PdfTable, Piece, table_markdown

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


HEADING_RATIO = 1.12
"""A line whose font is larger than the text's by this factor is a heading."""
LONGEST_HEADING = 200
PARAGRAPH_GAP = 0.6
"""In units of the line's font size: a larger gap begins a paragraph."""
CODE_GAP = 2.2
"""In units of the line's font size: a larger gap ends a block of code. A gap above 0.9 is a blank line in
it."""
_BULLET = re.compile(r"[•‣▪▸●○◦∙·\u2013*-]\s+")
_NUMBERED = re.compile(r"\d{1,3}[.)]\s")
_SENTENCE_END = (".", "!", "?", ":", "。", "؟")


@dataclass(slots=True)
class _Block:
    kind: Literal["heading", "paragraph", "item", "table", "code"]
    page: int
    text: str = ""
    level: int = 0
    lines: list[PdfLine] = field(default_factory=list[PdfLine])


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
        elif block.kind == "table":
            self._piece(block.text, "table", block.page, block.text)
        elif block.kind == "code":
            text = _code(block.lines)
            self._piece(text, "code", block.page, fenced(text, None))
        else:
            self.markdown.append(block.text)
            self.page = self.page if self.prose else block.page
            self.prose.append(block.text)

    def close(self) -> None:
        if self.prose:
            text = _joined(self.prose)
            self.done.append(DocumentSection(path=self.path.names, text=text, page=self.page))
            self.prose = []

    def _piece(self, text: str, kind: Literal["table", "code"], page: int, markdown: str) -> None:
        self.close()
        self.markdown.append(markdown)
        self.done.append(DocumentSection(path=self.path.names, text=text, kind=kind, page=page))


def lay_out(pieces: Sequence[Piece], fixed: Collection[str]) -> tuple[str, tuple[DocumentSection, ...]]:
    """Return (Markdown, sections) of the pieces, which are in reading order. Lines in ``fixed`` fonts are
    code."""
    kept = without_margins(pieces)
    levels = _heading_levels([piece for piece in kept if isinstance(piece, PdfLine)])
    sections = _Sections()
    for block in _blocks(kept, levels, fixed):
        sections.add(block)
    sections.close()
    return _joined(sections.markdown), tuple(sections.done)


def _heading_levels(lines: Sequence[PdfLine]) -> dict[float, int]:
    """Return the heading level of each heading font size: 1 for the largest, at most 6."""
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


def _blocks(pieces: Sequence[Piece], levels: dict[float, int], fixed: Collection[str]) -> list[_Block]:
    blocks: list[_Block] = []
    for piece in pieces:
        if isinstance(piece, PdfTable):
            blocks.append(_Block("table", piece.page, table_markdown(piece.rows)))
            continue
        block = _begun(piece, levels, fixed)
        last = blocks[-1] if blocks else None
        if last is not None and last.lines and _continues(last, block, piece):
            last.text = _run_on(last.text, piece.text)
            last.lines.append(piece)
        else:
            blocks.append(block)
    return blocks


def _begun(line: PdfLine, levels: dict[float, int], fixed: Collection[str]) -> _Block:
    """Return the block that ``line`` would begin."""
    level = levels.get(line.size, 0) if len(line.text) <= LONGEST_HEADING else 0
    if level:
        return _Block("heading", line.page, line.text, level, [line])
    if line.font in fixed:
        return _Block("code", line.page, line.text, 0, [line])
    bullet = _BULLET.match(line.text)
    if bullet:
        return _Block("item", line.page, f"- {line.text[bullet.end() :]}", 0, [line])
    kind: Literal["item", "paragraph"] = "item" if _NUMBERED.match(line.text) else "paragraph"
    return _Block(kind, line.page, line.text, 0, [line])


def _continues(block: _Block, begun: _Block, line: PdfLine) -> bool:
    """Whether ``line`` continues ``block`` and does not begin a block of its own."""
    last, near = block.lines[-1], _gap(block.lines[-1], line)
    if block.kind == "code":
        return begun.kind == "code" and near <= CODE_GAP
    if begun.kind == "code" and (last.text.endswith(_SENTENCE_END) or abs(line.left - last.left) > 2):
        return False  # otherwise the line is a name in code font within a sentence
    if block.level != begun.level or last.size != line.size or begun.kind == "item":
        return False
    if line.page != last.page or line.top < last.top:  # another page, or the next column
        return not block.level and not last.text.endswith(_SENTENCE_END) and line.text[:1].islower()
    if block.kind == "item" and line.left < block.lines[0].left - 1 and last.text.endswith(_SENTENCE_END):
        return False
    return near <= PARAGRAPH_GAP


def _gap(upper: PdfLine, lower: PdfLine) -> float:
    """Return the space between two lines in units of the lower one's font size; 0 across pages or columns."""
    if upper.page != lower.page or lower.top < upper.top or not lower.size:
        return 0.0
    return (lower.top - upper.bottom) / lower.size


def _code(lines: Sequence[PdfLine]) -> str:
    """Return lines of code with their indentation and the blank lines between them."""
    edge = min(line.left for line in lines)
    text: list[str] = []
    for number, line in enumerate(lines):
        if number and _gap(lines[number - 1], line) > 0.9:
            text.append("")
        columns = round((line.left - edge) / line.advance) if line.advance else 0
        text.append(" " * columns + line.text)
    return "\n".join(text)


def _run_on(text: str, more: str) -> str:
    """Join two lines, and a word that was hyphenated between them."""
    if text.endswith("-") and more[:1].islower() and text[-2:-1].isalpha():
        return text[:-1] + more
    return f"{text} {more}"


def _joined(blocks: Sequence[str]) -> str:
    """Join blocks by blank lines, and the items of a list by line ends."""
    parts: list[str] = []
    for number, block in enumerate(blocks):
        if number:
            parts.append("\n" if _is_item(block) and _is_item(blocks[number - 1]) else "\n\n")
        parts.append(block)
    return "".join(parts)


def _is_item(block: str) -> bool:
    return block.startswith("- ") or _NUMBERED.match(block) is not None
