"""Reads files of another system's records by the mapping of a source."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pydantic_core
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.events.upstream import DocumentWithdrawn
from tunewheel_contracts.formats.source_spec import BuiltIn, SourceSpec
from tunewheel_contracts.reading import at_door
from tunewheel_contracts.sources.envelopes import opened
from tunewheel_contracts.sources.mapping import PUBLISHED, Mapped, mapped
from tunewheel_local.connection import InvalidOption

from tunewheel_cli.publishing.items import Found, Item, Kind, Refusal, Source, SourceUnusable
from tunewheel_cli.publishing.lines import UTF8_BOM, OnBytes
from tunewheel_cli.publishing.records import ENDINGS, JSON, MAX_JSON_BYTES, ending_of, open_records

MAX_RECORD_BYTES = 64 << 20
KIND_OF = {event: Kind(kind) for kind, event in PUBLISHED.items()}


def source_of(name: str | None, spec: Path) -> SourceSpec:
    """Return the source ``name`` of the spec at that path, or the built-in mapping of that name. None: the
    spec's only source.

    Raises:
        InvalidOption: there is no such source.
        InvalidSpec: the spec is needed, and cannot be read.
    """
    from tunewheel_cli.spec_file import read_spec

    built_in = {one: SourceSpec(name=one, use=one) for one in get_args(BuiltIn)}
    if not spec.exists() and name in built_in:
        return built_in[name]
    declared = {source.name: source for source in read_spec(spec).sources}
    if name is None and len(declared) == 1:
        return next(iter(declared.values()))
    found = built_in | declared
    if name is None or name not in found:
        has = f"{spec} has {', '.join(declared) or 'no sources'}"
        raise InvalidOption(f"--source: name one; {has}, and Tunewheel has {', '.join(built_in)}")
    return found[name]


def items_of(
    path: Path, source: SourceSpec, project: str, *, on_bytes: OnBytes | None = None
) -> Iterator[tuple[Found | Refusal, Mapped]]:
    """Yield what becomes of each record of the file at ``path``, with the record.

    Raises:
        SourceUnusable: the file holds no records.
    """
    for item in _messages(path, on_bytes):
        if isinstance(item, Refusal):
            yield item, Mapped(item.line or 1, refusal=InvalidEvent(field=item.field, reason=item.reason))
            continue
        try:
            message = opened(source.format, item.fields)
            found = [] if message is None else [*mapped(source, project, message, at_door, most=None)]
        except InvalidEvent as error:
            found = [Mapped(1, refusal=error)]
        yield from ((item, one) for one in found)


def _messages(path: Path, on_bytes: OnBytes | None) -> Iterator[Found | Refusal]:
    """Yield the messages of a file. A JSON file is one message, or a list of them: the mapping says which
    of its lists holds the records."""
    if ending_of(path.name) not in ENDINGS:
        raise SourceUnusable(f"{path}: is none of {', '.join(ENDINGS)}; save the records as one of these")
    if not path.is_file():
        raise SourceUnusable(f"{path}: does not exist; check the path")
    if path.suffix.lower() in JSON and path.stat().st_size <= MAX_JSON_BYTES:
        try:
            value = pydantic_core.from_json(path.read_bytes().removeprefix(UTF8_BOM), allow_inf_nan=False)
        except ValueError:
            value = None  # JSON Lines under another name, or no JSON at all: the other reader says so
        if value is not None:
            listed: list[Any] = value if isinstance(value, list) else [value]
            yield from (Found(f"record {number}", number, one) for number, one in enumerate(listed, 1))
            return
    yield from open_records(path, max_bytes=MAX_RECORD_BYTES, on_bytes=on_bytes).items


def mapped_source(path: Path, source: SourceSpec, project: str, on_bytes: OnBytes | None) -> Source:
    """Return the file's records as items of ``publish``. Raises as ``items_of``."""
    result = Source((), f"records of {source.name}")

    def items() -> Iterator[Item]:
        for item, one in items_of(path, source, project, on_bytes=on_bytes):
            if one.refusal is not None:
                yield Refusal(item.where, item.line, one.refusal.field, one.refusal.reason)
            elif isinstance(one.event, DocumentWithdrawn):
                result.left["deleted records, which a file does not withdraw"] += 1
            elif one.event is None:
                result.left["records that the source's where leaves out"] += 1
            else:
                fields: dict[str, Any] = one.event.model_dump(mode="python", exclude_defaults=True)
                yield Found(item.where, item.line, fields, KIND_OF[type(one.event)])

    result.items = items()
    return result
