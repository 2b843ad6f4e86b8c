"""Reads XLSX as Markdown: each visible sheet is a heading and a table."""

from __future__ import annotations

import io
from collections.abc import Iterable
from datetime import date, datetime
from pathlib import Path
from typing import Any

from tunewheel_contracts.formats.document import XLSX

from tunewheel_ingest.normalising import normalise
from tunewheel_ingest.parsing.archives import judge_archive
from tunewheel_ingest.parsing.document import ParsedDocument, Parser, refusing_damage
from tunewheel_ingest.parsing.markdown import sections_of

ROWS_OF_TABLE = 200
"""A longer sheet becomes several tables, each with the first row as its header."""


def parse_xlsx(path: Path) -> ParsedDocument:
    """Return a workbook as Markdown. Formulas have the value that was saved with them.

    Raises:
        Unreadable: the file is no XLSX, is encrypted, or is a zip bomb.
    """
    from python_calamine import CalamineWorkbook, SheetVisibleEnum

    data = io.BytesIO(path.read_bytes())
    with refusing_damage("XLSX", "open it and save it anew"):
        judge_archive(data, "XLSX", "xl/")
        workbook = CalamineWorkbook.from_filelike(data)
        shown = [
            sheet.name for sheet in workbook.sheets_metadata if sheet.visible == SheetVisibleEnum.Visible
        ]
        parts = [part for name in shown for part in _sheet(name, workbook.get_sheet_by_name(name))]
    markdown = normalise("\n\n".join(parts))
    return ParsedDocument(markdown=markdown, sections=sections_of(markdown))


def _sheet(name: str, sheet: Any) -> Iterable[str]:
    rows = [cells for row in sheet.to_python() if any(cells := [_text(cell) for cell in row])]
    if not rows:
        return
    yield f"# {' '.join(name.split())}"
    header, body = rows[0], rows[1:]
    for start in range(0, max(1, len(body)), ROWS_OF_TABLE):
        yield as_table([header, *body[start : start + ROWS_OF_TABLE]])


def as_table(rows: list[list[str]]) -> str:
    """Return ``rows`` as a Markdown table. The first row is its header."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(rows[0]), *lines[1:]])


def _text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer() and abs(cell) < 1e15:
        cell = int(cell)
    text = cell.isoformat() if isinstance(cell, datetime | date) else str(cell)
    return " ".join(text.replace("|", "\\|").split())


SHEETS = Parser(XLSX, lambda path, name: parse_xlsx(path), libraries=("python_calamine", "defusedxml.sax"))
