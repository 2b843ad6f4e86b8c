"""Chooses the reader of a path."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunewheel_contracts.formats.document import media_type_of
from tunewheel_local.connection import InvalidOption

from tunewheel_cli.publishing.events import fields_of
from tunewheel_cli.publishing.folder import document_files, known_endings, read_documents
from tunewheel_cli.publishing.items import Kind, Source, SourceUnusable
from tunewheel_cli.publishing.lines import OnBytes, read_json_lines
from tunewheel_cli.publishing.rows import parse_maps, read_csv

JSON_LINES = (".jsonl", ".ndjson", ".jsonlines")


def open_source(
    path: Path, *, kind: Kind | None, maps: Sequence[str], max_bytes: int, on_bytes: OnBytes | None = None
) -> Source:
    """Return the items of ``path``, read according to its type.

    Raises:
        SourceUnusable: there is nothing to read.
        InvalidOption: ``kind`` is missing for CSV, or ``maps`` do not fit the path.
    """
    if not path.exists():
        raise SourceUnusable(f"{path}: does not exist; check the path")
    suffix = path.suffix.lower()
    if maps and suffix != ".csv":
        raise InvalidOption("--map: is for CSV files; in JSON Lines and folders fields have their names")
    if path.is_dir():
        files = document_files(path)
        if not files:
            raise SourceUnusable(f"{path}: holds no documents ({known_endings()})")
        return read_documents(path, files, max_bytes=max_bytes, on_bytes=on_bytes)
    if suffix in JSON_LINES:
        return read_json_lines(path, max_bytes=max_bytes, on_bytes=on_bytes)
    if suffix == ".csv":
        mapping = parse_maps(maps)
        if kind is None:
            raise InvalidOption("--kind: is needed for CSV; say ticket, example or document")
        return read_csv(path, mapping=mapping, fields=fields_of(kind), max_bytes=max_bytes, on_bytes=on_bytes)
    if media_type_of(path.name) or kind is Kind.DOCUMENT:
        return read_documents(path.parent, [path], max_bytes=max_bytes, on_bytes=on_bytes)
    endings = ", ".join((*JSON_LINES, ".csv", known_endings()))
    advice = "rename it, convert it, or send it to ingest with --kind document"
    raise SourceUnusable(f"{path}: is none of {endings}; {advice}")


def is_publishable(name: str) -> bool:
    """Whether a file of this name can be published without options."""
    return name.lower().endswith(JSON_LINES) or media_type_of(name) is not None


def size_of(path: Path) -> int:
    """Return how many bytes of ``path`` would be read."""
    if path.is_dir():
        return sum(file.stat().st_size for file in document_files(path) if file.is_file())
    return path.stat().st_size if path.exists() else 0
