"""Names derived from causes: the same effect has the same name, however often it is handled."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import Any

EVENT_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://tunewheel.dev/events")
_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> bytes:
    """Return ``value`` as UTF-8 JSON with sorted keys and no spaces, so that equal values hash equally.

    Raises:
        ValueError: ``value`` holds NaN or an infinity, which JSON (RFC 8259 §6) has no form for.
    """
    return _CANONICAL.encode(value).encode("utf-8", "surrogatepass")


def content_sha256(value: Any) -> str:
    """Return the lower-case hex SHA-256 of bytes, or of the canonical JSON of anything else."""
    return hashlib.sha256(value if isinstance(value, bytes) else canonical_json(value)).hexdigest()


def content_id(prefix: str, value: Any, *, digits: int = 20) -> str:
    """Return ``<prefix>-<first digits of the SHA-256 of value>``; 20 hex digits are 80 bits."""
    return f"{prefix}-{content_sha256(value)[:digits]}"


def turn_id_of(request_id: str) -> str:
    """Return the name of the turn that the ``dataset.requested`` with this event id began: the request that
    names its records."""
    return content_id("turn", request_id, digits=12)


def event_id(event_type: str, subject: str, identity: Any) -> str:
    """Return the UUIDv5 (RFC 9562 §5.5) of an event of ``event_type`` about ``subject``.

    ``identity`` is whatever else tells this event from its siblings; two handlings of one cause give
    equal identities and thus equal ids.
    """
    return str(uuid.uuid5(EVENT_NAMESPACE, f"{event_type}\n{subject}\n{content_sha256(identity)}"))
