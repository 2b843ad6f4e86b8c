"""Reads tables with a header line: CSV and its kin, and XLSX. Each row becomes a record of its cells."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator, Sequence
from datetime import date, datetime, time
from pathlib import Path
from typing import Any, BinaryIO

from tunewheel_cli.publishing.items import Found, Refusal, SourceUnusable
from tunewheel_cli.publishing.lines import split_lines

SEPARATORS = (",", ";", "\t", "|")
SNIFFED_BYTES = 16 << 20
SNIFFED_ROWS = 50
LONGEST_NAME = 200
"""A longer first cell is a text: the file has no header."""
Rows = Iterator[Found | Refusal]


def open_csv(file: BinaryIO, path: Path, *, max_bytes: int, separator: str | None) -> tuple[list[str], Rows]:
    """Return the columns and the rows of ``file``, which is UTF-8. Empty cells are left out.

    Raises SourceUnusable: there is no header.
    """
    csv.field_size_limit(max(max_bytes, 1))
    lines = _Lines(split_lines(file, max_bytes=max_bytes), max_bytes)
    first = [line for line, _ in zip(lines.peeked(), range(SNIFFED_ROWS), strict=False)]
    reader = csv.reader(lines, delimiter=separator or separator_of(first))
    try:
        names = header_of(path, next(reader, []))
    except csv.Error as error:
        raise SourceUnusable(f"{path}: its first line is not CSV ({error}); mend it") from error
    return names, _rows(lines, reader, names)


def separator_of(lines: Sequence[str]) -> str:
    """Return the separator by which most rows have as many cells as the header; of equals, the one with the
    most columns. A comma, where there is only one column."""
    best, found = (0.0, 0), ","
    for separator in SEPARATORS:
        try:
            sizes = [len(row) for row in csv.reader(lines, delimiter=separator) if row]
        except csv.Error:
            continue
        if sizes and sizes[0] > 1:
            # The last row may be cut off.
            whole = sizes[: max(1, len(sizes) - 1)]
            share = sum(size == sizes[0] for size in whole) / len(whole)
            best, found = max((best, found), ((round(share, 1), sizes[0]), separator), key=lambda one: one[0])
    return found


def header_of(path: Path, cells: Sequence[str]) -> list[str]:
    """Return the columns' names. Raises SourceUnusable."""
    names = [name.strip() for name in cells]
    if not any(names) or max(map(len, names)) > LONGEST_NAME:
        raise SourceUnusable(f"{path}: has no header line; name the columns in the first line")
    return names


class _Lines:
    """The lines of a file as text. It remembers the first line of a row, and refuses lines that are too
    long."""

    def __init__(self, lines: Iterator[tuple[int, bytes | None]], max_bytes: int) -> None:
        self.first = 0
        """The number of the first line that was read since this was set to 0."""
        self.overlong: list[Refusal] = []
        self._lines = lines
        self._ahead: list[tuple[int, bytes | None]] = []
        self._max_bytes = max_bytes

    def peeked(self) -> Iterator[str]:
        """Yield lines that are read again later."""
        for number, line in self._lines:
            self._ahead.append((number, line))
            if line is not None:
                yield line.decode("utf-8", "replace") + "\n"

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while True:
            number, line = self._ahead.pop(0) if self._ahead else next(self._lines)
            if line is None:
                reason = f"is over {self._max_bytes} bytes; shorten it"
                self.overlong.append(Refusal(f"line {number}", number, "(line)", reason))
                continue
            self.first = self.first or number
            # Keep bytes that are not UTF-8 as surrogates, so that only their row is refused.
            return line.decode("utf-8", "surrogateescape") + "\n"


def _rows(lines: _Lines, reader: Iterator[list[str]], names: Sequence[str]) -> Rows:
    while True:
        lines.first = 0
        try:
            row = next(reader, None)
        except csv.Error as error:
            yield Refusal(f"line {lines.first}", lines.first, "(line)", f"is not CSV: {error}")
            continue
        yield from lines.overlong
        lines.overlong.clear()
        if row is None:
            return
        if row:
            yield _found(lines.first, row, names)


def _found(line: int, row: Sequence[str], names: Sequence[str]) -> Found | Refusal:
    where = f"line {line}"
    if len(row) != len(names):
        return Refusal(
            where, line, "(line)", f"has {len(row)} cells, the header has {len(names)}; quote commas"
        )
    cells = {name: cell for name, cell in zip(names, row, strict=True) if name and cell.strip()}
    for name, cell in cells.items():
        if not cell.isascii() and any("\udc80" <= char <= "\udcff" for char in cell):
            return Refusal(where, line, name, "is not UTF-8; save the file as UTF-8")
    return Found(where, line, cells)


def encoding_of(start: bytes) -> str:
    """Return the encoding of a text that begins with ``start``: UTF-16 by its mark; Windows-1252 if it is not
    UTF-8 and no character of it is UTF-8's; otherwise UTF-8."""
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start.isascii() or start.startswith(codecs.BOM_UTF8):
        return "utf-8"
    text = start.decode("utf-8", "surrogateescape").rstrip("".join(map(chr, range(0xDC80, 0xDD00))))
    faults = sum("\udc80" <= char <= "\udcff" for char in text)
    right = sum(char > "\x7f" for char in text) - faults
    return "cp1252" if faults > right else "utf-8"


def open_xlsx(path: Path) -> tuple[list[str], Rows, str | None]:
    """Return the columns and the rows of the first sheet that has any, and a note if others were left out.

    Raises SourceUnusable: it is no workbook, or it has no header.
    """
    try:
        from python_calamine import CalamineError, CalamineWorkbook
    except ImportError as error:
        raise SourceUnusable(f"{path}: needs the package python-calamine; install it, or save CSV") from error
    try:
        book = CalamineWorkbook.from_path(str(path))
        sheets = {name: book.get_sheet_by_name(name) for name in book.sheet_names}
        filled = [name for name, sheet in sheets.items() if sheet.height]
        if not filled:
            raise SourceUnusable(f"{path}: has no rows")
        rows = sheets[filled[0]].iter_rows()
    except (CalamineError, OSError) as error:
        raise SourceUnusable(f"{path}: is no workbook that can be read: {error}") from error
    names = header_of(path, [_cell(cell) for cell in next(rows, [])])
    note = f"only the sheet {filled[0]!r} is read, of {len(filled)}" if len(filled) > 1 else None
    return names, _sheet_rows(rows, names), note


def _sheet_rows(rows: Iterator[list[Any]], names: Sequence[str]) -> Rows:
    for line, row in enumerate(rows, 2):
        cells = {name: _cell(value) for name, value in zip(names, row, strict=False) if name}
        cells = {name: cell for name, cell in cells.items() if cell.strip()}
        if cells:
            yield Found(f"line {line}", line, cells)


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return str(value)
