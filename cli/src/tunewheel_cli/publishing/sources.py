"""Chooses the reader of a path, and turns the records of a file into the fields of events."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from tunewheel_contracts.formats.document import media_type_of
from tunewheel_contracts.principal import SET_BY_DOORS
from tunewheel_local.connection import InvalidOption

from tunewheel_cli.publishing.events import fields_of, tell_kind
from tunewheel_cli.publishing.folder import document_files, known_endings, read_documents
from tunewheel_cli.publishing.formats.form import Fields, Form, LeftOut, Unfit
from tunewheel_cli.publishing.formats.pairs import PAIR
from tunewheel_cli.publishing.formats.recognition import MAPPABLE, recognise
from tunewheel_cli.publishing.items import Found, Item, Kind, Refusal, Source, SourceUnusable
from tunewheel_cli.publishing.lines import OnBytes
from tunewheel_cli.publishing.records import ENDINGS, JSON_LINES, ending_of, open_records

SAMPLE = 200
"""How many records decide what a file holds."""
SHOWN_KEYS = 12
EXAMPLE = fields_of(Kind.EXAMPLE) | {"project", *SET_BY_DOORS}


def open_source(
    path: Path, *, kind: Kind | None, maps: Sequence[str], max_bytes: int, on_bytes: OnBytes | None = None
) -> Source:
    """Return the items of ``path``, read according to its type.

    Raises:
        SourceUnusable: there is nothing to read, or nothing tells what the records are.
        InvalidOption: ``kind`` or ``maps`` do not fit the path.
    """
    if not path.exists():
        raise SourceUnusable(f"{path}: does not exist; check the path")
    data = not path.is_dir() and ending_of(path.name) in ENDINGS and kind is not Kind.DOCUMENT
    if data or (kind is Kind.DOCUMENT and maps):
        return _records_of(path, kind, parse_maps(maps), max_bytes, on_bytes)
    if maps:
        raise InvalidOption("--map: is for files of records; documents have no fields to map")
    if path.is_dir():
        files = document_files(path)
        if not files:
            raise SourceUnusable(f"{path}: holds no documents ({known_endings()})")
        return Source(read_documents(path, files, max_bytes=max_bytes, on_bytes=on_bytes))
    if ending_of(path.name) in ENDINGS and kind is Kind.DOCUMENT and media_type_of(path.name) is None:
        return _records_of(path, kind, {}, max_bytes, on_bytes)
    if media_type_of(path.name) or kind is Kind.DOCUMENT:
        return Source(read_documents(path.parent, [path], max_bytes=max_bytes, on_bytes=on_bytes))
    endings = ", ".join((*ENDINGS, known_endings()))
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


def _records_of(
    path: Path, kind: Kind | None, mapping: Mapping[str, str], max_bytes: int, on_bytes: OnBytes | None
) -> Source:
    records = open_records(path, max_bytes=max_bytes, on_bytes=on_bytes)
    fields, table = fields_of(kind), records.columns is not None
    check_targets(mapping, fields | MAPPABLE if kind in (None, Kind.EXAMPLE) else fields)
    if records.columns is not None:
        check_columns(path, records.columns, mapping, fields)
    ahead = list(islice(records.items, SAMPLE))
    found = [item.fields for item in ahead if isinstance(item, Found)]
    _check_paths(path, found, mapping)
    items, own = chain(ahead, records.items), fields if table or mapping else None
    whole = [renamed(record, mapping) for record in found]
    form, stated = _form_of(whole, kind, mapping), kind or _kind_of(whole, mapping)
    if form is not None:
        source = Source((), form.title, records.note)
        source.items = _examples(items, mapping, form, source.left)
        return source
    if whole and stated is None and not any(map(tell_kind, whole)):
        raise _unrecognised(path, found, table=table)
    if kind is Kind.TICKET or kind is Kind.DOCUMENT:
        _check_kind(path, kind, whole)
    return Source(_as_events(items, mapping, own, stated), None, records.note)


def _form_of(whole: Sequence[Fields], kind: Kind | None, mapping: Mapping[str, str]) -> Form | None:
    """Return the form of another tool that records are in; None: they have the fields of events."""
    mapped = {field.split(".")[0] for field in mapping.values()}
    if kind not in (None, Kind.EXAMPLE) or any(map(tell_kind, whole)) or mapped >= {"input", "output"}:
        return None
    form = recognise(whole)
    return None if form is PAIR and all(map(_is_example, whole)) else form


def _is_example(record: Fields) -> bool:
    return record.keys() <= EXAMPLE and "output" in record and isinstance(record.get("input"), str)


def _kind_of(whole: Sequence[Fields], mapping: Mapping[str, str]) -> Kind | None:
    """Return the kind of records without an id: examples have input and output; otherwise the only kind that
    has all mapped fields. None: nothing tells, or an id does."""
    if any(map(tell_kind, whole)):
        return None
    if whole and all("input" in one for one in whole[:1]) and any("output" in one for one in whole):
        return Kind.EXAMPLE
    mapped = {field.split(".")[0] for field in mapping.values()}
    kinds = [kind for kind in Kind if mapped and mapped <= fields_of(kind)]
    return kinds[0] if len(kinds) == 1 else None


def _own(record: Fields, fields: frozenset[str] | None) -> Fields:
    return record if fields is None else {name: value for name, value in record.items() if name in fields}


def _examples(
    items: Iterator[Found | Refusal], mapping: Mapping[str, str], form: Form, left: LeftOut
) -> Iterator[Item]:
    for item in items:
        if isinstance(item, Refusal):
            yield item
            continue
        try:
            for fields in form.examples(renamed(item.fields, mapping), left):
                yield Found(item.where, item.line, fields, Kind.EXAMPLE)
        except Unfit as unfit:
            yield Refusal(item.where, item.line, unfit.field, unfit.reason)


def _as_events(
    items: Iterator[Found | Refusal],
    mapping: Mapping[str, str],
    fields: frozenset[str] | None,
    kind: Kind | None,
) -> Iterator[Item]:
    for item in items:
        if isinstance(item, Refusal):
            yield item
        else:
            yield Found(item.where, item.line, _own(renamed(item.fields, mapping), fields), kind)


def _check_paths(path: Path, found: Sequence[Mapping[str, Any]], mapping: Mapping[str, str]) -> None:
    for name in mapping:
        if found and all(look_up(record, name) is None for record in found):
            raise InvalidOption(f"--map: {path} has nothing at {name!r}; it has {_keys(found)}")


def _check_kind(path: Path, kind: Kind, whole: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a file of examples that is said to be something else."""
    needed = "body" if kind is Kind.TICKET else "content"
    if any(needed in record or "document_id" in record for record in whole):
        return
    form = recognise(whole)
    looks = f"looks like {form.title}, which holds examples; leave --kind out" if form else None
    said = looks or f"has no {needed}; map it with --map KEY={needed} (it has {_keys(whole)})"
    if whole:
        raise InvalidOption(f"--kind {kind}: {path} {said}")


def _unrecognised(path: Path, found: Sequence[Mapping[str, Any]], *, table: bool) -> SourceUnusable:
    what = "columns" if table else "keys"
    return SourceUnusable(
        f"{path}: nothing tells what its records are; name question and answer with --map NAME=input --map "
        f"NAME=output ({what}: {_keys(found)})"
    )


def _keys(found: Sequence[Mapping[str, Any]]) -> str:
    names = dict.fromkeys(name for record in found for name in record)
    more = f" and {len(names) - SHOWN_KEYS} more" if len(names) > SHOWN_KEYS else ""
    shown = (name[:40] if name.isprintable() else repr(name[:40]) for name in [*names][:SHOWN_KEYS])
    return ", ".join(shown) + more


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


def check_targets(mapping: Mapping[str, str], fields: Iterable[str]) -> None:
    """Check that the first part of every field exists. Raises InvalidOption."""
    choice = sorted(fields)
    for field in mapping.values():
        if field.split(".")[0] not in choice:
            raise InvalidOption(f"--map: there is no field {field!r}; choose from {', '.join(choice)}")


def check_columns(path: Any, names: Sequence[str], mapping: Mapping[str, str], kept: Iterable[str]) -> None:
    """Refuse a header without a mapped column, or in which one column would overwrite another.

    Raises:
        InvalidOption: a column of ``mapping`` is missing.
        SourceUnusable: two columns get the same name, or one a part of the other's.
    """
    for column in mapping:
        if column not in names:
            raise InvalidOption(f"--map: {path} has no column {column!r}; it has {', '.join(names)}")
    fields = [mapping.get(name, name) for name in names]
    fields = [field for field in fields if field.split(".")[0] in kept]
    for field in fields:
        if fields.count(field) > 1:
            raise SourceUnusable(f"{path}: two columns are {field!r}; rename one, or map it to another field")
        parent = field
        while "." in parent:
            parent = parent.rpartition(".")[0]
            if parent in fields:
                raise SourceUnusable(
                    f"{path}: a column is {parent!r} and another {field!r}, a part of it; rename one, or map "
                    "both"
                )


def look_up(record: Mapping[str, Any], path: str) -> Any:
    """Return what stands at ``path``: a key, or keys and positions with dots between. None: nothing."""
    if path in record:
        return record[path]
    value: Any = record
    for name in path.split("."):
        if isinstance(value, Mapping):
            value = value.get(name)
        elif isinstance(value, list) and name.isdecimal() and int(name) < len(value):
            value = value[int(name)]
        else:
            return None
    return value


def renamed(record: Mapping[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """Return ``record`` with the names of ``mapping``; dotted fields make objects. Nulls are left out."""
    fields = {name: value for name, value in record.items() if name not in mapping}
    found = {field: look_up(record, path) for path, field in mapping.items()}
    objects: dict[str, Any] = {}
    for field, value in found.items():
        if value is None or value == "":
            continue
        *parents, last = field.split(".")
        inner = objects
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[last] = value
    return fields | objects
