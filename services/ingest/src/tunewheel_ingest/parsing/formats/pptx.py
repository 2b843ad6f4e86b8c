"""Reads PPTX as Markdown: each slide is a heading with its texts, tables and notes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewheel_contracts.formats.document import PPTX

from tunewheel_ingest.normalising import normalise
from tunewheel_ingest.parsing.archives import judge_archive
from tunewheel_ingest.parsing.document import ParsedDocument, Parser, refusing_damage
from tunewheel_ingest.parsing.formats.xlsx import as_table
from tunewheel_ingest.parsing.markdown import sections_of


def parse_pptx(path: Path) -> ParsedDocument:
    """Return a presentation as Markdown. Pictures and hidden slides are left out.

    Raises:
        Unreadable: the file is no PPTX, is encrypted, or is a zip bomb.
    """
    from pptx import Presentation

    data = io.BytesIO(path.read_bytes())
    with refusing_damage("PPTX", "open it and save it anew"):
        judge_archive(data, "PPTX", "ppt/")
        deck = Presentation(data)
        shown = [slide for slide in deck.slides if slide._element.get("show") != "0"]
        markdown = normalise("\n\n".join(_slide(number, slide) for number, slide in enumerate(shown, 1)))
        title = deck.core_properties.title
    return ParsedDocument(markdown=markdown, sections=sections_of(markdown), title=normalise(title or ""))


def _slide(number: int, slide: Any) -> str:
    title = slide.shapes.title
    heading = " ".join(title.text_frame.text.split()) if title is not None else ""
    parts = [f"# {heading or f'Slide {number}'}"]
    parts += [text for shape in slide.shapes if shape != title for text in _texts(shape)]
    if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None:
        parts.append(notes.text)
    return "\n\n".join(parts)


def _texts(shape: Any) -> Iterator[str]:
    """Yield the texts of a shape, or of the shapes in a group."""
    if hasattr(shape, "shapes"):
        for inner in shape.shapes:
            yield from _texts(inner)
    elif getattr(shape, "has_table", False):
        yield as_table(
            [
                [" ".join(cell.text.replace("|", "\\|").split()) for cell in row.cells]
                for row in shape.table.rows
            ]
        )
    elif shape.has_text_frame:
        lines = [p for p in shape.text_frame.paragraphs if p.text.strip()]
        bullets = len(lines) > 1
        yield "\n".join(f"{'  ' * p.level}{'- ' * bullets}{' '.join(p.text.split())}" for p in lines)


SLIDES = Parser(PPTX, lambda path, name: parse_pptx(path), libraries=("pptx", "defusedxml.sax"))
