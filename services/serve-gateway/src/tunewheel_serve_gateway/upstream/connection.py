"""One connection to an engine by HTTP/1.1 (RFC 9112): an asyncio protocol on ``httptools``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

from tunewheel_serve_gateway.upstream.protocol import UpstreamBroken, UpstreamError, UpstreamSilent, lost

LONGEST_HEAD = 64 << 10
LONGEST_ANSWER = 16 << 20
"""Most bytes of a whole answer, or of one event of a stream. An engine never sends more for a request that
the gateway accepts; an endless line of another server would fill the memory."""
MOST_UNREAD = 256 << 10
"""Bytes of a stream that wait for its reader. Then no more is read from the engine."""
LAST_SECONDS = 1.0
"""Longest wait for the end of a stream whose last event is there."""
SILENT = "the engine did not answer in time; try again, or send a shorter request"
BROKE_OFF = "the engine broke off its answer; send the request again"


class Connection(asyncio.Protocol):
    """One connection. It carries one request at a time: ``send``, then ``whole`` or ``parts``.

    ``on_*`` are called by the parser, the other public methods without a docstring by the event loop.
    """

    def __init__(self, retry_after: str, on_lost: Callable[[Connection], None]) -> None:
        self._retry_after = retry_after
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._parser = HttpResponseParser(self)
        self._transport: Any = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._on_over: Callable[[Connection], None] | None = None
        self._is_spent = self._is_paused = self._is_last = False
        self._is_over = True
        """Whether no answer is expected, or the answer has come or failed."""
        self._has_head = False
        self._error: UpstreamError | None = None
        self._patience = self._heard = 0.0
        self._parts: list[bytes] = []
        self._unread = self._head_size = 0
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        """The headers of the answer, by their names in lower case."""
        self.is_stream = False
        """Whether the answer is read in ``parts``, which may together have any size."""
        self.released = 0.0
        """When the last answer ended, by the event loop's clock."""

    def send(self, request: bytes, *, patience: float) -> None:
        """Send a whole request. ``patience``: see ``expect``."""
        self._is_over = self._has_head = False
        self._error = None
        self._parts, self._unread, self._head_size = [], 0, 0
        self.expect(patience)
        self._transport.write(request)

    def expect(self, patience: float) -> None:
        """Set the longest wait for the next bytes of the answer, in seconds from now. A stream's reader
        calls it for each event: other bytes, such as comments, keep a connection open and answer nothing."""
        self._patience, self._heard = patience, self._loop.time()
        at = self._heard + patience
        if self._timer is not None:
            if self._timer.when() <= at:  # One timer serves many requests: it looks again when it is due.
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._look)

    async def head(self) -> None:
        """Return once the head of the answer is there. Raises UpstreamError."""
        while not self._has_head:
            await self._wait()
        if self._error is not None and not self._parts:
            raise self._error

    async def whole(self) -> bytes:
        """Return the body of the answer. Raises UpstreamError: among others if it is over
        ``LONGEST_ANSWER``."""
        self.is_stream = False
        self._resume()
        while not self._is_over:
            await self._wait()
        if self._error is not None:
            raise self._error
        return b"".join(self._parts)

    async def parts(self) -> AsyncGenerator[bytes, None]:
        """Yield the body of the answer as it arrives. Raises UpstreamError."""
        while True:
            if self._parts:
                part = b"".join(self._parts)
                self._parts.clear()
                self._unread = 0
                self._resume()
                yield part
            elif self._is_over:
                if self._error is not None:
                    raise self._error
                return
            else:
                await self._wait()

    def drain(self, on_over: Callable[[Connection], None]) -> bool:
        """Have ``on_over`` called at the end of the answer, which nobody reads; return False where the end
        has come already."""
        if self._is_over:
            return False
        self.is_stream, self._on_over = False, on_over
        self._resume()
        self.expect(LAST_SECONDS)
        return True

    @property
    def is_reusable(self) -> bool:
        """Whether the next request can be sent over this connection."""
        return self._is_over and not self._is_spent and not self._transport.is_closing()

    def rest(self) -> bool:
        """Wait for the next request; return False where the connection cannot carry another."""
        self._parts.clear()
        self._resume()  # The last bytes of an answer that nobody read may have been too many.
        self.released = self._loop.time()
        return self.is_reusable and not self._is_last and not self._transport.get_write_buffer_size()

    def cut(self) -> None:
        """Close the connection at once. A request that still waits on it fails."""
        if not self._is_over:
            self._error = self._error or UpstreamBroken(BROKE_OFF)
        self._is_spent = self._has_head = self._is_over = True
        self._transport.abort()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._is_over:  # Nobody asked: the next request would take these bytes for its answer.
            self.cut()
            return
        if not (self.is_stream and self._has_head):
            self._heard = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._is_spent = True
            if not self._is_over:
                self._fail(UpstreamBroken(BROKE_OFF, detail=f"it is not valid HTTP: {error}"))
        if not self._has_head:
            self._head_size += len(data)
            if self._head_size > LONGEST_HEAD:
                self._fail(UpstreamBroken(BROKE_OFF, detail=f"its head is over {LONGEST_HEAD} bytes"))
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_spent = True
        self._on_lost(self)
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_over:
            if not self._has_head:
                self._fail(lost(exc or ConnectionResetError(), self._retry_after))
            elif exc is None and self._ends_with_connection():
                self._is_over = True
            else:
                self._fail(UpstreamBroken(BROKE_OFF))
        self._wake()

    def on_message_begin(self) -> None:
        if self._is_over:
            self._is_spent = True  # A second answer, for which nobody asked.
            return
        self.status, self.headers = 0, {}

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._has_head:  # Trailers are left out.
            self.headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self._is_over or status < 200:  # RFC 9110 §15.2: an interim answer comes before the answer.
            return
        self.status, self._has_head = status, True
        self._is_last = not self._parser.should_keep_alive()
        if self.headers.get(b"content-encoding", b"identity") != b"identity":
            self._fail(UpstreamBroken(BROKE_OFF, detail="it is compressed, which was not asked for"))

    def on_body(self, body: bytes) -> None:
        if self._is_over:
            return
        self._parts.append(body)
        self._unread += len(body)
        if self.is_stream:
            if self._unread > MOST_UNREAD and not self._is_paused:
                self._is_paused = True
                self._transport.pause_reading()
        elif self._unread > LONGEST_ANSWER:
            reason = f"the engine's answer is over {LONGEST_ANSWER} bytes; ask for fewer tokens"
            self._fail(UpstreamBroken(reason))

    def on_message_complete(self) -> None:
        if self._has_head:
            self._is_over = True

    def _ends_with_connection(self) -> bool:
        """Return whether the end of the connection is the end of the answer (RFC 9112 §6.3)."""
        return self.headers.keys().isdisjoint((b"content-length", b"transfer-encoding"))

    def _fail(self, error: UpstreamError) -> None:
        self._error = error
        self.cut()

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _resume(self) -> None:
        if self._is_paused:
            self._is_paused, self._heard = False, self._loop.time()
            self._transport.resume_reading()

    def _wake(self) -> None:
        """Let the request go on: at the end of its answer, and earlier if it is read in parts."""
        if self._is_over and self._on_over is not None:
            on_over, self._on_over = self._on_over, None
            on_over(self)
        waiter, is_due = self._waiter, self._is_over or (self.is_stream and self._has_head)
        if is_due and waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _look(self) -> None:
        """Fail if the engine was silent for too long."""
        self._timer = None
        if self._is_over:
            return
        is_unread = self.is_stream and bool(self._parts)  # The reader is slow, not the engine.
        left = self._patience if is_unread else self._heard + self._patience - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self._fail(UpstreamSilent(SILENT))
        self._wake()
