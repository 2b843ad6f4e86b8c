"""CloudEvents 1.0 attributes as Kafka headers, in binary mode.

Source: CloudEvents 1.0.2 core §3, and its Kafka protocol binding §3.2. Attributes are ``ce_*`` headers; the
data's type is ``content-type``. The SDK's binding is not used, because it took as long as all other work of
ingest for a record. A test checks that this module gives the same results as the SDK.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import cast

from tunewheel_contracts.errors import InvalidEvent

CONTENT_TYPE = "application/json"
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


def from_headers(headers: Headers) -> dict[str, str]:
    """Return the attributes in ``headers``, by name in lower case. All required attributes are present.

    Raises:
        InvalidEvent: the headers are not those of a CloudEvent; ``field`` names the header.
    """
    pairs = cast("Mapping[str, bytes]", headers).items() if isinstance(headers, Mapping) else headers
    attributes = {
        lowered[3:]: _text(lowered, raw) for name, raw in pairs if (lowered := name.lower())[:3] == _PREFIX
    }
    if not attributes:
        raise InvalidEvent(
            field="ce_type", reason="is missing; send CloudEvents 1.0 in binary mode (ce_* headers)"
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
    return attributes


def _text(name: str, raw: bytes | None) -> str:
    try:
        return raw.decode("utf-8") if raw else ""
    except UnicodeDecodeError as error:
        raise InvalidEvent(field=name, reason="is not UTF-8; encode the header as UTF-8") from error
