"""Reading requests and sending answers by plain ASGI. The hot path uses no framework, to save time."""

from __future__ import annotations

import asyncio

from starlette.types import Receive, Scope, Send

from tunewheel_serve_gateway.errors import ApiError, BodyTooLarge, Headers
from tunewheel_serve_gateway.upstream.sse import as_event

JSON = (b"content-type", b"application/json")
EVENT_STREAM = (b"content-type", b"text/event-stream; charset=utf-8")

HEARTBEAT = b": still at work\n\n"
"""A comment of the server-sent events format (WHATWG HTML §9.2.6). Clients ignore comments."""


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


async def send_body(send: Send, status: int, headers: Headers, body: bytes) -> None:
    """Send a whole answer."""
    sized = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": sized})
    await send({"type": "http.response.body", "body": body})


async def send_error(send: Send, error: ApiError) -> None:
    """Send ``error`` in OpenAI's shape."""
    await send_body(send, error.status, error.headers(), error.body())


class EventStream:
    """A streamed response. Each event is sent as soon as it is there.

    After ``heartbeat_seconds`` of silence a comment is sent (0: never), so that neither a proxy nor the
    client takes a long prefill for a dead connection. If the comment is the first thing sent, it also sends
    the status 200; a later error is then sent as an event. ``headers``: headers that are known before the
    answer.
    """

    def __init__(self, send: Send, *, heartbeat_seconds: float, headers: Headers | None = None) -> None:
        self.begun = False
        self._over = False
        self._send = send
        self._headers = headers or []
        self._expected: Headers = []
        self._seconds = heartbeat_seconds
        self._loop = asyncio.get_running_loop()
        self._sent_at = self._loop.time()
        self._beating: asyncio.Task[None] | None = None
        # One timer serves the whole stream and checks when the last event was sent. A timer per event would
        # cost more than sending the event.
        self._timer = self._loop.call_later(heartbeat_seconds, self._look) if heartbeat_seconds else None

    def expect(self, headers: Headers) -> None:
        """Note headers that the answer will have. A heartbeat before the answer sends them."""
        self._expected = headers

    async def begin(self, headers: Headers) -> None:
        """Send status 200 and ``headers``, unless a heartbeat already did."""
        if self.begun:
            return
        self.begun = True
        start = [EVENT_STREAM, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]
        all_of_them = [*start, *self._headers, *headers]
        await self._send({"type": "http.response.start", "status": 200, "headers": all_of_them})

    async def send(self, event: bytes) -> None:
        """Send one event, once the answer has begun."""
        if self._beating is not None:
            await self._beating
        self._sent_at = self._loop.time()
        await self._send({"type": "http.response.body", "body": event, "more_body": True})

    async def end(self) -> None:
        """End the response normally."""
        self._stop_beating()
        if self._beating is not None:
            await self._beating
        await self._send({"type": "http.response.body", "body": b""})

    async def fail(self, error: ApiError) -> None:
        """Send ``error``: with its status, or as an event where status 200 was already sent."""
        self._stop_beating()
        if self._beating is not None:
            await self._beating
        if not self.begun:
            await send_body(self._send, error.status, [*error.headers(), *self._headers], error.body())
            return
        await self.send(as_event(error.body()))
        await self.end()

    def close(self) -> None:
        """Send nothing more."""
        self._stop_beating()
        if self._beating is not None:
            self._beating.cancel()

    def _stop_beating(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        left = self._sent_at + self._seconds - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
        else:
            self._beating = self._loop.create_task(self._beat(), name="heartbeat")

    async def _beat(self) -> None:
        await self.begin(self._expected)
        await self._send({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
        self._sent_at = self._loop.time()
        self._beating = None
        if not self._over:
            self._timer = self._loop.call_later(self._seconds, self._look)
