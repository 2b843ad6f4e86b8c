"""Reads the records of a file of any form: JSON Lines, JSON, CSV, TSV and XLSX, also compressed by gzip."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pydantic_core

from tunewheel_cli.publishing.items import Found, Refusal, SourceUnusable
from tunewheel_cli.publishing.lines import UTF8_BOM, OnBytes, read_json_lines
from tunewheel_cli.publishing.tables import SNIFFED_BYTES, encoding_of, open_csv, open_xlsx

JSON_LINES = (".jsonl", ".ndjson", ".jsonlines")
JSON = (".json",)
SEPARATED = {".csv": None, ".tsv": "\t", ".tab": "\t"}
XLSX = (".xlsx", ".xlsm", ".xls", ".ods")
ENDINGS = (*JSON_LINES, *JSON, *SEPARATED, *XLSX)
MAX_JSON_BYTES = 256 << 20
"""JSON is read as a whole; a longer file must be JSON Lines."""


@dataclass(frozen=True, slots=True)
class Records:
    """The records of a file. ``columns``: of a table; None: the file is none. ``note``: what is left out."""

    items: Iterator[Found | Refusal]
    columns: list[str] | None = None
    note: str | None = None


def ending_of(name: str) -> str:
    """Return the ending of a file's name that tells its form, without that of gzip."""
    lower = name.lower()
    return Path(lower.removesuffix(".gz")).suffix


def open_records(path: Path, *, max_bytes: int, on_bytes: OnBytes | None = None) -> Records:
    """Open the file at ``path``, whose name ends with one of ``ENDINGS``.

    Raises SourceUnusable: the file is empty, has no header, or is not what its name says.
    """
    ending = ending_of(path.name)
    try:
        if ending in XLSX:
            columns, rows, note = open_xlsx(path)
            return Records(rows, columns, note)
        file = _opened(path, on_bytes)
        start = file.peek(1).lstrip(UTF8_BOM + b" \t\r\n")[:1]
        if ending in JSON or (ending in JSON_LINES and start == b"["):
            return Records(_whole(_of_json(file, path, max_bytes, lines=ending in JSON_LINES), path))
        if ending in JSON_LINES:
            return Records(_whole(read_json_lines(file, max_bytes=max_bytes), path))
        text, note = _as_utf8(file, path)
        columns, rows = open_csv(text, path, max_bytes=max_bytes, separator=SEPARATED[ending])
        return Records(_whole(rows, path), columns, note)
    except _BROKEN as error:
        raise _broken(path, error) from error
    except OSError as error:
        raise SourceUnusable(f"{path}: cannot be read: {error.strerror or error}") from error


_BROKEN = (gzip.BadGzipFile, EOFError, zlib.error)


def _broken(path: Path, error: Exception) -> SourceUnusable:
    return SourceUnusable(f"{path}: is no whole gzip file: {error}")


def _whole(items: Iterator[Found | Refusal], path: Path) -> Iterator[Found | Refusal]:
    """Yield ``items``. Raises SourceUnusable: the rest of the file cannot be decompressed."""
    try:
        yield from items
    except _BROKEN as error:
        raise _broken(path, error) from error


class _Counting(io.RawIOBase):
    """A file that tells how many of its bytes were read."""

    def __init__(self, file: io.FileIO, on_bytes: OnBytes) -> None:
        self._file, self._on_bytes = file, on_bytes

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = self._file.readinto(buffer) or 0
        self._on_bytes(size)
        return size

    def close(self) -> None:
        self._file.close()
        super().close()


def _opened(path: Path, on_bytes: OnBytes | None) -> io.BufferedReader[Any]:
    raw = _Counting(io.FileIO(path), on_bytes or (lambda _: None))
    file = io.BufferedReader(raw, 1 << 16)
    if path.name.lower().endswith(".gz"):
        return io.BufferedReader(cast("io.RawIOBase", gzip.GzipFile(fileobj=file)))
    return file


def _as_utf8(file: io.BufferedReader[Any], path: Path) -> tuple[BinaryIO, str | None]:
    """Return ``file`` as UTF-8 without a mark, and a note if it is in another encoding."""
    start = file.read(SNIFFED_BYTES)
    encoding = encoding_of(start)
    whole = io.BufferedReader(cast("io.RawIOBase", _Joined(start.removeprefix(UTF8_BOM), file)))
    if encoding == "utf-8":
        return whole, None
    recoded = codecs.EncodedFile(whole, "utf-8", encoding, "replace")
    return cast("BinaryIO", recoded), f"read as {'Windows-1252' if encoding == 'cp1252' else 'UTF-16'}"


class _Joined(io.RawIOBase):
    """Bytes that were read already, and then the rest of their file."""

    def __init__(self, start: bytes, rest: BinaryIO) -> None:
        self._start, self._rest = io.BytesIO(start), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        part = self._start.read(len(buffer)) or self._rest.read(len(buffer))
        buffer[: len(part)] = part
        return len(part)


def _of_json(file: BinaryIO, path: Path, max_bytes: int, *, lines: bool) -> Iterator[Found | Refusal]:
    """Yield the objects of a list, or of the only list of objects in an object. JSON Lines under another name
    are read too. Raises SourceUnusable."""
    with closing(file):
        content = file.read(MAX_JSON_BYTES + 1).removeprefix(UTF8_BOM)
        if len(content) > MAX_JSON_BYTES:
            raise SourceUnusable(f"{path}: is over {MAX_JSON_BYTES} bytes of JSON; save it as JSON Lines")
        try:
            value = pydantic_core.from_json(content, allow_inf_nan=False)
        except ValueError as error:
            if lines or (content.lstrip()[:1] == b"{" and "trailing" in str(error)):
                yield from read_json_lines(io.BytesIO(content), max_bytes=max_bytes)
                return
            raise SourceUnusable(f"{path}: is not JSON: {error}; correct it, or save JSON Lines") from error
    for number, one in enumerate(_listed(value, path), 1):
        if isinstance(one, dict):
            yield Found(f"item {number}", number, one)
        else:
            yield Refusal(f"item {number}", number, "(item)", "is not an object; write a list of objects")


def _listed(value: Any, path: Path) -> list[Any]:
    if isinstance(value, Mapping):
        lists = [one for one in value.values() if isinstance(one, list) and one and isinstance(one[0], dict)]
        # A single conversation is an object whose only list is that of its messages.
        if len(lists) == 1 and "messages" not in value and "conversations" not in value:
            return lists[0]
        return [value]
    if not isinstance(value, list):
        raise SourceUnusable(f"{path}: holds no list of objects")
    return value
