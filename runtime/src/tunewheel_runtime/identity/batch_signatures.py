"""The signatures of upstream data, in a header of each record.

An upload has thousands of events, and a signature for each would take as long as all other work on it. So up
to ``BATCH`` events that are published together share one signature. Its payload is the SHA-256 of each: of
the event's id, type and time, and of the bytes of its data. The time is covered because a copy with a later
time would replace newer answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

BATCH = 32
"""A larger batch saves little, and makes the signature longer."""
HEADER = "ce_signature"
TYPE = "events"
"""The ``typ`` in a signature. The signatures of commands have none, so that neither counts as the other."""
_COVERED = ["ce_id", "ce_time", "ce_type"]
_SIZE = hashlib.sha256().digest_size


def digest_of(headers: Mapping[str, bytes], value: bytes) -> bytes:
    """Return the digest of an event as its door writes it."""
    covered = (headers["ce_id"], headers["ce_type"], headers["ce_time"], value)
    return hashlib.sha256(b"\n".join(covered)).digest()


def digest_on_log(headers: Mapping[str, bytes], value: bytes) -> bytes:
    """Return the digest of an event that anybody may have written. Raises ValueError: a covered header is
    missing, occurs in a second spelling, or has a line break."""
    # A header counts in any case, so a second spelling would state a time that nobody signed.
    if sorted(name for name in headers if name.lower() in _COVERED) != _COVERED:
        raise ValueError(f"{', '.join(_COVERED)} must each occur once")
    if any(b"\n" in headers[name] for name in _COVERED):
        raise ValueError("a line break would shift what is covered")
    return digest_of(headers, value)


def holds(payload: bytes, digest: bytes) -> bool:
    """Return whether ``digest`` is one of those in a signature's payload."""
    at = payload.find(digest)
    while at > 0 and at % _SIZE:
        at = payload.find(digest, at + 1)
    return at >= 0
