"""Takes the record out of a message: of CloudEvents, of Debezium's envelope, or of none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from tunewheel_contracts.binding import structured_event
from tunewheel_contracts.errors import InvalidEvent


@dataclass(frozen=True, slots=True)
class Message:
    """What one message holds. ``is_deleted``: the other system deleted the record."""

    record: Any
    is_deleted: bool = False


def opened(format: str, value: Any, key: Any = None) -> Message | None:
    """Return the record in a decoded message; None: the message is about no record.

    A message without a value deletes the record that its key names: the record is then the key, if the key is
    an object, else an object whose only field is ``key``.

    Raises:
        InvalidEvent: the message is not of ``format``.
    """
    if format == "cloudevents":
        return None if value is None else Message(structured_event(value))
    if format == "debezium":
        key = _payload(key)
        value = _payload(value)
    if value is None:
        return None if key is None else Message(_fields_of(key), is_deleted=True)
    return _changed_row(value, key) if format == "debezium" else Message(value)


def _fields_of(key: Any) -> dict[str, Any]:
    return _object(key) or ({} if key is None else {"key": key})


def _object(value: Any) -> dict[str, Any] | None:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else None


def _payload(value: Any) -> Any:
    """Leave out the schema, which Connect's JSON converter writes beside each value by default."""
    both = _object(value)
    return both["payload"] if both is not None and both.keys() == {"schema", "payload"} else value


def _changed_row(value: Any, key: Any) -> Message | None:
    """Return the row of a change event (Debezium, "change event values"). Rows that Debezium's
    ``ExtractNewRecordState`` flattened are read too."""
    change = _object(value)
    if change is None:
        raise InvalidEvent(field="(body)", reason="is no object; send Debezium's change events")
    if "op" not in change:
        return Message(change, is_deleted=str(change.get("__deleted", "")).lower() == "true")
    before, after, operation = _object(change.get("before")), _object(change.get("after")), str(change["op"])
    match operation:
        case "c" | "r" | "u" if after is not None:
            return Message(after)
        case "d":
            # Without REPLICA IDENTITY FULL the row before holds its key alone, or nothing.
            return Message({**_fields_of(key), **(before or {})}, is_deleted=True)
        case "m":
            return None
        case "t":
            raise InvalidEvent(
                field="op", reason="is a truncation, which names no record; withdraw them by their ids"
            )
        case _:
            raise InvalidEvent(field="op", reason="is none of c, r, u, d, m and t with the row of after")


def structured(value: Any, headers: Mapping[str, bytes]) -> Any:
    """Return a CloudEvent of Kafka's binary mode in the structured form: attributes beside ``data``."""
    attributes = {
        lower[3:]: raw.decode("utf-8", "replace")
        for name, raw in headers.items()
        if (lower := name.lower()).startswith("ce_")
    }
    return {**attributes, "data": value} if "specversion" in attributes else value
