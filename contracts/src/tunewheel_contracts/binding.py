"""CloudEvents 1.0 on Kafka: written in binary mode, read in binary and in structured mode.

Source: CloudEvents 1.0.2 core §3, its Kafka protocol binding §3.2 and §3.3, and its JSON format. In binary
mode attributes are ``ce_*`` headers, and the data's type is ``content-type``. In structured mode
``content-type`` is ``application/cloudevents+json``, and the value is an object of the attributes and
``data``. The SDK's binding is not used, because it took as long as all other work of ingest for a record. A
test checks that this module gives the same results as the SDK.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, cast

from tunewheel_contracts.errors import InvalidEvent

CONTENT_TYPE = "application/json"
STRUCTURED = "application/cloudevents+json"
REQUIRED_HEADERS = ("ce_specversion", "ce_id", "ce_source", "ce_type")
Headers = Mapping[str, bytes] | Iterable[tuple[str, bytes]]

_PREFIX = "ce_"
_OPTIONAL = ("subject", "datacontenttype", "dataschema")
_KNOWN = frozenset(
    {*(name[3:] for name in REQUIRED_HEADERS), *_OPTIONAL, "time", "project", "causationid", "correlationid"}
)
_EXTENSION = re.compile(r"(?!data$)[a-z0-9]+")


def to_headers(
    *, id: str, type: str, source: str, subject: str, time: datetime, extensions: Mapping[str, str | None]
) -> dict[str, bytes]:
    """Return the headers of one event. Extensions that are None or empty are left out.

    Raises:
        ValueError: an attribute is empty, or ``time`` has no time zone.
    """
    if not (id and type and source and subject) or time.tzinfo is None:
        raise ValueError(f"not a CloudEvent: {id=}, {type=}, {source=}, {subject=}, {time=}")
    headers = {
        "ce_id": id.encode(),
        "ce_type": type.encode(),
        "ce_source": source.encode(),
        "ce_subject": subject.encode(),
        "ce_time": time_text(time).encode(),
        "content-type": CONTENT_TYPE.encode(),
    }
    headers |= {f"{_PREFIX}{name}": value.encode() for name, value in extensions.items() if value}
    headers["ce_specversion"] = b"1.0"
    return headers


def time_text(time: datetime) -> str:
    """Return a time as in the header ``ce_time`` (RFC 3339)."""
    stamp = time.isoformat()
    return f"{stamp[:-6]}Z" if stamp.endswith("+00:00") else stamp


def read_event(headers: Headers, value: bytes) -> tuple[dict[str, str], bytes]:
    """Return the attributes of a message, by name in lower case, and its data. All required attributes are
    present. A message with any ``ce_*`` header is in binary mode, so nobody signs in one mode what is read in
    the other.

    Raises:
        InvalidEvent: the message is no CloudEvent; ``field`` names the header or the attribute.
    """
    pairs = tuple(cast("Mapping[str, bytes]", headers).items() if isinstance(headers, Mapping) else headers)
    attributes = {
        lowered[3:]: _text(lowered, raw) for name, raw in pairs if (lowered := name.lower())[:3] == _PREFIX
    }
    if is_structured(pairs):
        event = structured_event(value)
        data = event.pop("data", None)
        attributes = {name: _told(name, one) for name, one in event.items() if one is not None}
        value = json.dumps(data).encode()
    _check(attributes)
    return attributes, value


def structured_event(value: bytes | Any) -> dict[str, Any]:
    """Return a CloudEvent of the JSON format, given as bytes or as parsed JSON; ``data_base64`` becomes
    ``data``.

    Raises:
        InvalidEvent: it is no JSON, or no CloudEvent.
    """
    try:
        event = json.loads(value) if isinstance(value, bytes) else value
    except (ValueError, RecursionError) as error:
        raise InvalidEvent(field="(body)", reason=f"is not JSON; send {STRUCTURED}") from error
    if not isinstance(event, dict) or "specversion" not in event:
        raise InvalidEvent(field="specversion", reason="is missing; send CloudEvents, structured or binary")
    found = cast("dict[str, Any]", event)
    if "data_base64" not in found:
        return found
    try:
        data = json.loads(base64.b64decode(found["data_base64"], validate=True))
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidEvent(field="data_base64", reason="is no JSON in base64; send JSON as data") from error
    return {name: one for name, one in found.items() if name != "data_base64"} | {"data": data}


def is_structured(pairs: Iterable[tuple[str, bytes]]) -> bool:
    """Return whether a message with these headers is read in structured mode. Any ``ce_*`` header makes it
    binary."""
    pairs = tuple(pairs)
    if any(name[:3].lower() == _PREFIX for name, _ in pairs):
        return False
    kinds = [raw or b"" for name, raw in pairs if name.lower() == "content-type"]
    return any(kind.partition(b";")[0].strip().lower() == STRUCTURED.encode() for kind in kinds)


def _check(attributes: dict[str, str]) -> None:
    if not attributes:
        raise InvalidEvent(
            field="ce_type",
            reason=f"is missing; send CloudEvents 1.0 with ce_* headers, or with content-type {STRUCTURED}",
        )
    for name in REQUIRED_HEADERS:
        if not attributes.get(name[3:]):
            raise InvalidEvent(field=name, reason="is missing; CloudEvents 1.0 requires it")
    if (version := attributes["specversion"]) != "1.0":
        raise InvalidEvent(field="ce_specversion", reason=f"is {version!r}; send CloudEvents 1.0")
    for name in _OPTIONAL:
        if attributes.get(name) == "":
            raise InvalidEvent(field=f"ce_{name}", reason="is empty; give it a value, or leave it out")
    for name in attributes:
        if name not in _KNOWN and not _EXTENSION.fullmatch(name):
            reason = "is not a valid attribute name; use lower-case letters and digits, but not 'data'"
            raise InvalidEvent(field=f"ce_{name}", reason=reason)


def _told(name: str, value: Any) -> str:
    """Return an attribute of the JSON format as text; for integers and booleans that of JSON (core §3.1)."""
    if not isinstance(value, str | int):
        raise InvalidEvent(field=ascii(name)[1:-1], reason="is no text, integer or boolean; send one of them")
    text = value if isinstance(value, str) else json.dumps(value)
    if not (name + text).isascii():
        try:
            (name + text).encode()
        except UnicodeEncodeError as error:  # half a character, which no header of what follows could hold
            reason = "has half of a surrogate pair; send whole characters"
            raise InvalidEvent(field=ascii(name)[1:-1], reason=reason) from error
    return text


def _text(name: str, raw: bytes | None) -> str:
    try:
        return raw.decode("utf-8") if raw else ""
    except UnicodeDecodeError as error:
        raise InvalidEvent(field=name, reason="is not UTF-8; encode the header as UTF-8") from error
