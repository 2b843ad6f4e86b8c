"""Plain ASGI, where the hot path wants no framework between it and the server."""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.types import Receive, Scope, Send

from tunewheel_serve_gateway.errors import ApiError, BodyTooLarge, Headers

JSON = (b"content-type", b"application/json")
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")


class ClientGone(Exception):
    """The client closed the connection; nobody waits for an answer."""


def header(scope: Scope, name: bytes) -> str | None:
    """Return the first header called ``name`` (lower case), or None."""
    for key, value in scope["headers"]:
        if key == name:
            return value.decode("latin-1")
    return None


async def read_body(scope: Scope, receive: Receive, *, limit: int) -> bytes:
    """Return the whole body.

    Raises:
        BodyTooLarge: more than ``limit`` bytes, announced or sent.
        ClientGone
    """
    announced = header(scope, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise BodyTooLarge(f"the body is over {limit} bytes; shorten the messages", param="(body)")
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise BodyTooLarge(f"the body is over {limit} bytes; shorten the messages", param="(body)")
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


async def until_gone(receive: Receive) -> None:
    """Return when the client is gone; to be raced against the work done for it."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def send_body(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer."""
    sized = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": sized})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: ApiError) -> None:
    """Send ``error`` in OpenAI's shape."""
    await send_body(send, error.status, error.headers(), error.body())


async def send_events(send: Send, headers: Headers, events: AsyncIterator[bytes]) -> None:
    """Send an answer piece by piece, each as soon as it is there."""
    start = [EVENT_STREAM, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"), *headers]
    await send({"type": "http.response.start", "status": 200, "headers": start})
    async for event in events:
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
