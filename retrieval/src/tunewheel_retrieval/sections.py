"""Sections of documents: the pieces below one heading, with their place."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

import ftfy
from tunewheel_contracts.formats.document import DocumentSection

_REPAIR = ftfy.TextFixerConfig(uncurl_quotes=False, explain=False)
_BLANK_LINES = re.compile(r"\n{3,}")


@dataclass(frozen=True)
class Section:
    """The pieces below one heading of one document, in reading order."""

    record_id: str
    group: str
    title: str
    path: tuple[str, ...]
    pieces: tuple[DocumentSection, ...]

    @property
    def heading(self) -> str:
        """The heading path as text, without a first heading that only repeats the title."""
        own = self.path[1:] if self.path[:1] == (self.title,) else self.path
        return " > ".join(own)

    @property
    def place(self) -> str:
        """Heading path, and page or lines, for the lineage."""
        parts = [" > ".join(self.path)] if self.path else []
        first = self.pieces[0]
        if first.page is not None:
            parts.append(f"page {first.page}")
        if first.first_line is not None:
            parts.append(f"lines {first.first_line}-{first.last_line or first.first_line}")
        return ", ".join(parts)

    @property
    def text(self) -> str:
        """All pieces as Markdown."""
        return "\n\n".join(markdown_of(piece) for piece in self.pieces)


def markdown_of(piece: DocumentSection) -> str:
    """Return a piece as Markdown: code in a fence that it cannot close, other text unchanged."""
    if piece.kind != "code":
        return piece.text
    longest = max((len(run) for run in re.findall(r"`{3,}", piece.text)), default=2)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{piece.language or ''}\n{piece.text}\n{fence}"


def joined(sections: Iterable[Section]) -> list[Section]:
    """Return ``sections`` with neighbours of the same record and heading joined. A named piece of code stays
    alone."""
    found: list[Section] = []
    for one in sections:
        last = found[-1] if found else None
        alone = one.pieces[0].name is not None or (last is not None and last.pieces[0].name)
        if last and not alone and (last.record_id, last.path) == (one.record_id, one.path):
            found[-1] = Section(last.record_id, last.group, last.title, last.path, last.pieces + one.pieces)
        else:
            found.append(one)
    return found


def repaired(text: str, *, verbatim: bool) -> str:
    """Repair encoding errors, and keep white space with a meaning: list indentation and code."""
    fixed = unicodedata.normalize("NFC", ftfy.fix_text(text, _REPAIR))
    trimmed = "\n".join(line.rstrip() for line in fixed.split("\n"))
    return trimmed.strip("\n") if verbatim else _BLANK_LINES.sub("\n\n", trimmed).strip()


def on_one_line(text: str) -> str:
    """Return a title or heading repaired, with single spaces as its white space."""
    return " ".join(repaired(text, verbatim=False).split())
