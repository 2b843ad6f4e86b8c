"""Reads CSV with a header line. Columns become fields."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunewheel_local.connection import InvalidOption

from tunewheel_cli.publishing.items import Found, Refusal, Source, SourceUnusable
from tunewheel_cli.publishing.lines import UTF8_BOM, OnBytes, split_lines


def parse_maps(maps: Sequence[str]) -> dict[str, str]:
    """Return {column: field} of ``column=field`` options; a field may be dotted, as ``output.category``.

    Raises:
        InvalidOption: an option has another form, or a column or field is named twice.
    """
    mapping: dict[str, str] = {}
    for text in maps:
        column, _, field = text.rpartition("=")
        if not column or not field:
            raise InvalidOption(f"--map: {text!r} is not column=field, such as text=input")
        if column in mapping or field in mapping.values():
            raise InvalidOption(f"--map: {text!r} names a column or a field a second time; map each once")
        mapping[column] = field
    return mapping


def read_csv(
    path: Path,
    *,
    mapping: Mapping[str, str],
    fields: frozenset[str],
    max_bytes: int,
    on_bytes: OnBytes | None = None,
) -> Source:
    """Yield the rows of a CSV file.

    A column that ``mapping`` does not name keeps its name if that is one of ``fields``; otherwise it is left
    out. Empty cells are left out too.

    Raises:
        SourceUnusable: the header is missing, is not UTF-8, or its columns are no fields or overlap.
        InvalidOption: ``mapping`` names a column or a field that does not exist.
    """
    with path.open("rb") as file:
        lines = _Lines(split_lines(file, max_bytes=max_bytes, on_bytes=on_bytes), max_bytes)
        csv.field_size_limit(max_bytes)
        reader = csv.reader(lines)
        names = _field_names(path, _header(path, reader), mapping, fields)
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


class _Lines:
    """The lines of a file as text. It remembers the first line of a row, and refuses lines that are too
    long."""

    def __init__(self, lines: Iterator[tuple[int, bytes | None]], max_bytes: int) -> None:
        self.first = 0
        """The number of the first line that was read since this was set to 0."""
        self.overlong: list[Refusal] = []
        self._lines = lines
        self._max_bytes = max_bytes

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for number, line in self._lines:
            if line is None:
                reason = f"is over {self._max_bytes} bytes; split it"
                self.overlong.append(Refusal(f"line {number}", number, "(line)", reason))
                continue
            self.first = self.first or number
            if number == 1:
                line = line.removeprefix(UTF8_BOM)
            # Keep bytes that are not UTF-8 as surrogates, so that only their row is refused.
            return line.decode("utf-8", "surrogateescape") + "\n"
        raise StopIteration


def _header(path: Path, reader: Iterator[list[str]]) -> list[str]:
    try:
        names = [name.strip() for name in next(reader)]
        if any("\udc80" <= char <= "\udcff" for name in names for char in name):
            raise SourceUnusable(f"{path}: its header is not UTF-8; save the file as UTF-8")
        return names
    except (StopIteration, csv.Error) as error:
        raise SourceUnusable(f"{path}: has no header line; name the columns in the first line") from error


def _field_names(
    path: Path, header: list[str], mapping: Mapping[str, str], fields: frozenset[str]
) -> list[str | None]:
    for column in mapping:
        if column not in header:
            raise InvalidOption(f"--map: {path} has no column {column!r}; it has {', '.join(header)}")
    for field in mapping.values():
        if field.split(".")[0] not in fields:
            raise InvalidOption(
                f"--map: there is no field {field!r}; choose from {', '.join(sorted(fields))}"
            )
    names = [mapping.get(column, column if column in fields else None) for column in header]
    _check_names(path, [name for name in names if name is not None])
    if not any(names):
        separator = next((mark for mark in (";", "\t") if len(header) == 1 and mark in header[0]), None)
        if separator is not None:
            raise SourceUnusable(f"{path}: its columns are parted by {separator!r}; save it with commas")
        raise SourceUnusable(
            f"{path}: no column is a field; map them with --map column=field (columns: {', '.join(header)}; "
            f"fields: {', '.join(sorted(fields))})"
        )
    return names


def _check_names(path: Path, names: list[str]) -> None:
    """Refuse a header in which one column would overwrite another."""
    for name in names:
        if names.count(name) > 1:
            raise SourceUnusable(f"{path}: two columns are {name!r}; rename one, or map it to another field")
        parent = name
        while "." in parent:
            parent = parent.rpartition(".")[0]
            if parent in names:
                raise SourceUnusable(
                    f"{path}: a column is {parent!r} and another {name!r}, a part of it; rename one, or map "
                    "both"
                )


def _found(line: int, row: list[str], names: list[str | None]) -> Found | Refusal:
    where = f"line {line}"
    if len(row) != len(names):
        return Refusal(
            where, line, "(line)", f"has {len(row)} cells, the header has {len(names)}; quote commas"
        )
    fields: dict[str, Any] = {}
    for name, cell in zip(names, row, strict=True):
        if name is None or not cell.strip():
            continue
        if any("\udc80" <= char <= "\udcff" for char in cell):
            return Refusal(where, line, name, "is not UTF-8; save the file as UTF-8")
        *parents, last = name.split(".")
        inner = fields
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = cell
    return Found(where, line, fields)
