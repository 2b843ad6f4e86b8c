"""Which engine a request is sent to: consistent hashing with bounded loads.

An engine reads the beginning of a prompt faster if it has read the same beginning before. So the requests of
one conversation go to one engine, as long as no engine has many more requests than the others. Of m requests
on n engines none has more than ceil(c · m / n) (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with
bounded loads", arXiv:1608.01350).

For each beginning the engines are ordered by a hash of both (Thaler and Ravishankar, "Using name-based
mappings to increase hit rates", 1998). The paper has a ring in place of the order, where an engine that is
full or gone leaves its requests to one neighbour. Here it leaves them to all others. All gateways have the
same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from math import ceil
from typing import Any

from tunewheel_serve_gateway.upstream.endpoint import Endpoint

EXCESS = 1.25
"""The paper's c: how much more than the mean of all engines one engine may have."""
LONGEST_TEXT = 4_096
"""Characters of each message that are hashed."""


def beginning_of(model_id: str, messages: Iterable[Mapping[str, Any]]) -> bytes:
    """Return a hash of ``model_id`` and of the messages up to the first of a user, which all turns of a
    conversation share."""
    found = blake2b(model_id.encode(), digest_size=8)
    for message in messages:
        found.update(f"\n{str(message.get('content'))[:LONGEST_TEXT]}".encode("utf-8", "replace"))
        if message.get("role") == "user":
            break
    return found.digest()


def pick(engines: Sequence[Endpoint], beginning: bytes) -> Endpoint:
    """Return the first engine in the order of ``beginning`` that may take another request. ``engines``: one
    or more."""
    if len(engines) == 1:
        return engines[0]
    most = ceil(EXCESS * (sum(engine.outstanding for engine in engines) + 1) / len(engines))

    def place(engine: Endpoint) -> bytes:
        name = engine.url.rpartition("@")[2]  # engines behind one proxy differ by their paths alone
        return blake2b(name.encode(), key=beginning, digest_size=8).digest()

    return max((engine for engine in engines if engine.outstanding < most), key=place)
