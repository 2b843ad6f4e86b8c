"""Reads a Jupyter notebook (nbformat 3 and 4) as Markdown: its texts and its code, without outputs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tunewheel_contracts.formats.document import IPYNB

from tunewheel_ingest.normalising import normalise
from tunewheel_ingest.parsing.document import ParsedDocument, Parser, refusing_damage
from tunewheel_ingest.parsing.markdown import fenced, sections_of, title_of


def parse_notebook(path: Path) -> ParsedDocument:
    """Return a notebook as Markdown.

    Raises:
        Unreadable: the file is no notebook.
    """
    with refusing_damage("notebook", "save it anew as .ipynb"):
        notebook = json.loads(path.read_bytes())
        metadata = notebook.get("metadata", {})
        language = str(metadata.get("language_info", {}).get("name") or "python").lower()
        sheets = notebook.get("worksheets") or [notebook]
        parts = [part for sheet in sheets for cell in sheet["cells"] for part in _texts(cell, language)]
    markdown = normalise("\n\n".join(parts))
    return ParsedDocument(markdown=markdown, sections=sections_of(markdown), title=title_of(markdown))


def _texts(cell: dict[str, Any], language: str) -> Iterator[str]:
    source = cell.get("source", cell.get("input", ""))
    text = (source if isinstance(source, str) else "".join(source)).strip("\n")
    if not text.strip():
        return
    match cell["cell_type"]:
        case "code":
            yield fenced(text, language)
        case "heading":  # nbformat 3
            yield f"{'#' * min(6, int(cell.get('level', 1)))} {text}"
        case _:
            yield text


NOTEBOOK = Parser(IPYNB, lambda path, name: parse_notebook(path))
