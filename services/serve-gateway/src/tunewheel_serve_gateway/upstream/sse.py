"""The part of server-sent events (WHATWG HTML §9.2) that inference engines use: ``data`` fields."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tunewheel_serve_gateway.upstream.connection import LONGEST_ANSWER
from tunewheel_serve_gateway.upstream.protocol import UpstreamBroken

DONE = b"[DONE]"


async def read_data(parts: AsyncIterator[bytes]) -> AsyncIterator[tuple[bytes, bool]]:
    """Yield the payload of every ``data:`` line of a body that arrives in arbitrary ``parts``, and whether
    another line of the same part follows.

    Engines send one line per event; comments, event names and empty lines are skipped. Raises UpstreamBroken:
    a line is longer than ``LONGEST_ANSWER``.
    """
    rest = b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        found = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        for n, payload in enumerate(found, start=1):
            yield payload, n < len(found)
        if len(rest) > LONGEST_ANSWER:
            raise UpstreamBroken(
                "the engine failed; send the request again",
                detail=f"one of its events is over {LONGEST_ANSWER} bytes; is engine_url an OpenAI server?",
            )
    if rest.startswith(b"data:"):
        yield rest[5:].strip(), False


def as_event(payload: bytes) -> bytes:
    """Return ``payload``, free of line breaks, as one event."""
    return b"data: " + payload + b"\n\n"
