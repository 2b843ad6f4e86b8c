"""Turns a record of a file into an event, or into a refusal that names line and field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.event import Envelope, KafkaRecord, UpstreamEvent, new_event
from tunewheel_contracts.events.upstream import DocumentPublished, ExamplePublished, TicketPublished
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.principal import SET_BY_DOORS
from tunewheel_contracts.reading import at_door
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES

from tunewheel_cli.publishing.items import Found, Kind, Refusal

SOURCE = "/tunewheel/cli"
EVENTS: dict[Kind, type[UpstreamEvent]] = {
    Kind.TICKET: TicketPublished,
    Kind.EXAMPLE: ExamplePublished,
    Kind.DOCUMENT: DocumentPublished,
}
IDS = {kind: event.subject_field for kind, event in EVENTS.items()}
# Kafka's limit includes key, value and headers, so leave room for key and headers.
MAX_VALUE_BYTES = MAX_MESSAGE_BYTES - 16 * 1024


def fields_of(kind: Kind | None) -> frozenset[str]:
    """Return the fields that records of ``kind`` (None: of any kind) can have, without the project."""
    events = EVENTS.values() if kind is None else (EVENTS[kind],)
    return frozenset(name for event in events for name in event.model_fields) - {"project", *SET_BY_DOORS}


def make_event(
    found: Found,
    *,
    project: str,
    kind: Kind | None,
    validated_by: str | None = None,
) -> Envelope[Any] | Refusal:
    """Check one record and wrap it in an event, without any principal. ``validated_by`` is the expert of
    answers that name none.

    Without ``kind`` the record's id field tells its kind. With ``kind`` a record may lack an id. Then its id
    is made from its content, so that publishing it again gives the same id.
    """
    stated = kind or found.kind
    found_kind = stated or tell_kind(found.fields)
    if found_kind is None:
        names = ", ".join(name for name in IDS.values() if name in found.fields)
        if names:
            return _refuse(found, "(kind)", f"cannot be told by {names}; keep one of them, or say --kind")
        names = ", ".join(IDS.values())
        return _refuse(found, "(kind)", f"cannot be told; add one of {names}, or say --kind")
    fields = {name: value for name, value in found.fields.items() if name not in SET_BY_DOORS}
    if fields.setdefault("project", project) != project:
        return _refuse(
            found, "project", f"is {fields['project']!r}, not {project!r}; publish it under its own"
        )
    if IDS[found_kind] not in fields and stated is not None and found_kind is not Kind.DOCUMENT:
        fields[IDS[found_kind]] = content_id(found_kind.value, fields)
    if validated_by is not None and found_kind is not Kind.DOCUMENT:
        fields["validated_by"] = fields.get("validated_by") or validated_by
    try:
        data = EVENTS[found_kind].model_validate(fields, context=at_door())
    except ValidationError as error:
        field, reason = first_complaint(error)
        return _refuse(found, field, _lower(reason))
    return new_event(data, source=SOURCE)


def encode(found: Found, envelope: Envelope[Any]) -> KafkaRecord | Refusal:
    """Encode an event for the log, or return why it cannot be published."""
    try:
        record = envelope.to_kafka()
    except ValueError:
        return _refuse(found, "(line)", "holds half a surrogate pair; save the text as UTF-8")
    if len(record.value) > MAX_VALUE_BYTES:
        return _refuse(
            found, "(line)", f"makes {len(record.value)} bytes, {MAX_VALUE_BYTES} are allowed; shorten it"
        )
    return record


def tell_kind(fields: Mapping[str, Any]) -> Kind | None:
    kinds = [kind for kind, name in IDS.items() if name in fields]
    return kinds[0] if len(kinds) == 1 else None


def _refuse(found: Found, field: str, reason: str) -> Refusal:
    return Refusal(found.where, found.line, field, reason)


def _lower(reason: str) -> str:
    """Return a message of pydantic with a lower-case first letter, as it follows the field's name."""
    return reason[:1].lower() + reason[1:]
