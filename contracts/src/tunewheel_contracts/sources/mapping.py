"""Maps records to events."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import UpstreamEvent, decode_data
from tunewheel_contracts.events.upstream import (
    DocumentPublished,
    DocumentWithdrawn,
    ExamplePublished,
    TicketPublished,
)
from tunewheel_contracts.formats.expressions import Unreadable, search
from tunewheel_contracts.formats.source_spec import ID_OF, MappingSpec, SourceSpec
from tunewheel_contracts.reading import Reading
from tunewheel_contracts.sources.envelopes import Message

PUBLISHED: dict[str, type[UpstreamEvent]] = {
    "ticket": TicketPublished,
    "example": ExamplePublished,
    "document": DocumentPublished,
}
MOST_RECORDS = 10_000
"""Most records in one message of a topic or a webhook."""
AS_JSON = frozenset({"answer", "output", "rejected_output", "thread", "messages", "allowed_groups"})
"""The fields that hold any JSON. In all others a number is an id or a text."""


@dataclass(frozen=True, slots=True)
class Mapped:
    """What became of one record, by its number within the message, from 1: an event, or a refusal. Without
    either, the mapping's ``where`` leaves the record out. ``changed_at``: see ``MappingSpec``."""

    number: int
    event: UpstreamEvent | None = None
    refusal: InvalidEvent | None = None
    changed_at: datetime | None = None


def mapped(
    source: SourceSpec,
    project: str,
    message: Message,
    reading: Callable[[], Reading],
    *,
    most: int | None = MOST_RECORDS,
) -> Iterator[Mapped]:
    """Yield what becomes of each record of ``message``.

    ``reading``: returns the context in which an event is validated, such as ``at_door``. ``most``: records
    that a message may hold; None: any number.

    Raises:
        InvalidEvent: the message holds no list of records where the mapping's ``each`` looks for one.
    """
    mapping = source.mapping
    for number, record in enumerate(_records(mapping, message.record, most), 1):
        try:
            event = _event(mapping, source, project, record, message.is_deleted, reading())
            # A withdrawal counts from its arrival: what it takes may be published after the last change.
            is_version = event is not None and not isinstance(event, DocumentWithdrawn)
            changed_at = _changed_at(mapping, record, reading()) if is_version else None
            yield Mapped(number, event, changed_at=changed_at)
        except InvalidEvent as error:
            yield Mapped(number, refusal=error)


def _records(mapping: MappingSpec, record: Any, most: int | None) -> list[Any]:
    found = record if mapping.each is None else _found("each", mapping.each, record)
    if isinstance(found, list):
        records = cast("list[Any]", found)
        if most is not None and len(records) > most:
            raise InvalidEvent(field="each", reason=f"finds {len(records)} records; send {most} at most")
        return records
    if mapping.each is not None and found is None:
        raise InvalidEvent(field="each", reason=f"finds no list at {mapping.each}; correct the source's each")
    return [found]


def _event(
    mapping: MappingSpec, source: SourceSpec, project: str, record: Any, is_deleted: bool, reading: Reading
) -> UpstreamEvent | None:
    assert mapping.kind is not None
    if not isinstance(record, dict):
        raise InvalidEvent(field="(record)", reason="is no object; correct the source's each")
    if is_deleted or (mapping.withdraw is not None and _is_true("withdraw", mapping.withdraw, record)):
        return _withdrawal(mapping, source, project, record, reading)
    if mapping.where is not None and not _is_true("where", mapping.where, record):
        return None
    fields: dict[str, Any] = {"project": project}
    for name, value in mapping.set.items():
        _put(fields, name, value)
    for name, expression in mapping.map.items():
        value = _found(name, expression, record)
        if value is not None and value != "":
            _put(fields, name, _as_text(name, value))
    return _validated(PUBLISHED[mapping.kind], fields, mapping, reading)


def _withdrawal(
    mapping: MappingSpec, source: SourceSpec, project: str, record: Any, reading: Reading
) -> UpstreamEvent:
    kind = mapping.kind or ""
    name = ID_OF[kind]
    fields = {"project": project, "kind": kind, "reason": f"deleted in {source.name}"}
    fields["document_id"] = _as_text(name, _found(name, mapping.map[name], record))
    return _validated(DocumentWithdrawn, fields, mapping, reading)


def _changed_at(mapping: MappingSpec, record: Any, reading: Reading) -> datetime | None:
    if mapping.changed_at is None:
        return None
    found = _found("changed_at", f"time({mapping.changed_at})", record)
    try:
        return None if found is None else reading.capped(datetime.fromisoformat(found).astimezone(UTC))
    except (ValueError, OverflowError) as error:  # a time that UTC does not have cannot be read from the log
        raise InvalidEvent(field="changed_at", reason=str(error)) from error


def _found(name: str, expression: str, record: Any) -> Any:
    try:
        return search(expression, record)
    except Unreadable as error:
        raise InvalidEvent(
            field=name, reason=f"{error}; correct the source's {name}: {expression}"
        ) from error


def _is_true(name: str, expression: str, record: Any) -> bool:
    """Return JMESPath's truth: false, null and what is empty are false."""
    value = _found(name, expression, record)
    return not (value is None or value is False or value in ("", [], {}))


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    *parents, last = name.split(".")
    for parent in parents:
        inner = fields.setdefault(parent, {})
        if not isinstance(inner, dict):
            raise InvalidEvent(
                field=name, reason=f"is within {parent}, which is no object; map one of the two"
            )
        fields = cast("dict[str, Any]", inner)
    fields[last] = value


def _as_text(name: str, value: Any) -> Any:
    first = name.partition(".")[0]
    if first in AS_JSON:
        return value
    if name == "attributes" and isinstance(value, dict):
        found = cast("dict[str, Any]", value).items()
        return {inner: _as_text("", one) for inner, one in found if one not in (None, "")}
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float) or (first == "attributes" and not isinstance(value, str)):
        return json.dumps(value, ensure_ascii=False)
    return value


def _validated(
    event_class: type[UpstreamEvent], fields: dict[str, Any], mapping: MappingSpec, reading: Reading
) -> UpstreamEvent:
    try:
        body = json.dumps(fields, allow_nan=False).encode()
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidEvent(field="(record)", reason="holds a value that JSON cannot represent") from error
    try:
        return decode_data(event_class, body, reading)
    except InvalidEvent as error:
        expression = mapping.map.get(error.field)
        if expression is None:
            raise
        raise InvalidEvent(
            field=error.field, reason=f"{error.reason} (the source reads it at {expression})"
        ) from error
