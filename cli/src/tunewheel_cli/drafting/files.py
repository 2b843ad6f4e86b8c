"""Finds and reads the files that a project is drafted from."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tunewheel_contracts.topics import MAX_MESSAGE_BYTES

from tunewheel_cli.drafting.columns import read_columns
from tunewheel_cli.publishing.folder import document_files
from tunewheel_cli.publishing.formats.form import SYSTEM
from tunewheel_cli.publishing.items import Found, Kind, SourceUnusable
from tunewheel_cli.publishing.lines import OnBytes
from tunewheel_cli.publishing.records import ENDINGS, ending_of, open_records
from tunewheel_cli.publishing.sources import open_source
from tunewheel_cli.surveying.survey import Survey

LOOKED_AT = 2_000
"""How many records say what the columns are."""


@dataclass(frozen=True, slots=True)
class ReadFile:
    """A file of examples, and how it is published."""

    path: Path
    form: str
    maps: tuple[str, ...]
    notes: tuple[str, ...]

    def command(self, project: str, *, validated: bool) -> str:
        words = ["tunewheel", "publish", str(self.path), "--project", project]
        words += [word for one in self.maps for word in ("--map", one)]
        words += [] if validated else ["--validated-by", "NAME"]
        return shlex.join(words)


@dataclass(slots=True)
class ReadAll:
    """All files, read once."""

    survey: Survey = field(default_factory=Survey)
    files: list[ReadFile] = field(default_factory=list)
    documents: list[Path] = field(default_factory=list)
    """Files and folders of documents."""
    prompts: Counter[str] = field(default_factory=Counter)


def sort_out(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the files of records, and the documents and folders of documents, among ``paths``.

    Raises SourceUnusable: a path is neither.
    """
    records, documents = list[Path](), list[Path]()
    for path in paths:
        if path.is_dir():
            inside = sorted(one for one in path.iterdir() if one.is_file() and ending_of(one.name) in ENDINGS)
            if document_files(path):
                documents.append(path)
            elif inside:
                records += inside
            else:
                raise SourceUnusable(f"{path}: holds neither documents nor files of records")
        elif not path.exists():
            raise SourceUnusable(f"{path}: does not exist; check the path")
        else:
            (records if ending_of(path.name) in ENDINGS else documents).append(path)
    return records, documents


def read_all(paths: Sequence[Path], *, maps: Sequence[str] = (), on_bytes: OnBytes | None = None) -> ReadAll:
    """Read all ``paths``. ``maps``: what the user says of the files of records; without them they are found.

    Raises:
        SourceUnusable: a file holds no examples, or nothing tells its question or its answer.
        InvalidOption: ``maps`` do not fit a file.
    """
    records, documents = sort_out(paths)
    found = ReadAll(documents=documents)
    for path in records:
        found.files.append(_read(path, tuple(maps), found, on_bytes))
    return found


def _read(path: Path, maps: tuple[str, ...], found: ReadAll, on_bytes: OnBytes | None) -> ReadFile:
    notes: list[str] = []
    try:
        source = open_source(path, kind=None, maps=maps, max_bytes=MAX_MESSAGE_BYTES, on_bytes=on_bytes)
    except SourceUnusable:
        reading = None if maps else read_columns([*_first_records(path)])
        if reading is None:
            raise
        maps = reading.maps
        if reading.others:
            notes.append(f"could be the answer instead: {', '.join(reading.others)}")
        source = open_source(path, kind=None, maps=maps, max_bytes=MAX_MESSAGE_BYTES, on_bytes=on_bytes)
    before = found.survey.examples
    found.survey.read(source)
    if found.survey.examples == before:
        raise SourceUnusable(f"{path}: holds no example; {_why(found.survey)}")
    found.prompts.update(source.left.prompts)
    notes += [note for note in source.notes if not note.endswith(SYSTEM)]
    return ReadFile(path, source.form or ("columns" if maps else "examples"), maps, tuple(notes))


def _first_records(path: Path) -> Iterator[dict[str, object]]:
    records = open_records(path, max_bytes=MAX_MESSAGE_BYTES)
    for item in islice(records.items, LOOKED_AT):
        if isinstance(item, Found):
            yield {name: value for name, value in item.fields.items() if name.isprintable()}


def _why(survey: Survey) -> str:
    if survey.kinds[Kind.TICKET]:
        return "tickets without an answer teach nothing; give answered ones as examples"
    if not survey.refusals:
        return "it is empty"
    (name, reason), count = survey.refusals.most_common(1)[0]
    return f"{count:,} lines are refused: {name} {reason}"
