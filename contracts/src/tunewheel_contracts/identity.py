"""Ids derived from causes: handling a cause again gives the same ids."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

EVENT_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://tunewheel.dev/events")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """Return ``value`` as UTF-8 JSON with sorted keys and no spaces, so that equal values hash equally.

    Raises:
        ValueError: ``value`` has NaN or an infinity, which JSON (RFC 8259 §6) cannot represent.
    """
    return _CANONICAL.encode(value).encode("utf-8", "surrogatepass")


def content_sha256(value: Any) -> str:
    """Return the lower-case hex SHA-256 of bytes, or of the canonical JSON of any other value."""
    return hashlib.sha256(value if isinstance(value, bytes) else canonical_json(value)).hexdigest()


def sha256_file(path: Path) -> str:
    """Return the lower-case hex SHA-256 of a file's bytes. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


_NO_VALUES = content_sha256({})


def content_id(prefix: str, value: Any, *, digits: int = 20) -> str:
    """Return ``<prefix>-<first digits of the SHA-256 of value>``; 20 hex digits are 80 bits."""
    return f"{prefix}-{content_sha256(value)[:digits]}"


def turn_id_of(request_id: str) -> str:
    """Return the id of the turn that began with the ``dataset.requested`` of this event id. It must be the
    request that names its records."""
    return content_id("turn", request_id, digits=12)


def event_id(event_type: str, subject: str, identity: Any) -> str:
    """Return the UUIDv5 (RFC 9562 §5.5) of an event of ``event_type`` about ``subject``.

    ``identity``: the other values that determine the id. Handling a cause twice gives equal identities, and
    so equal ids.
    """
    digest = _NO_VALUES if identity == {} else content_sha256(identity)
    return str(uuid.uuid5(EVENT_NAMESPACE, f"{event_type}\n{subject}\n{digest}"))
