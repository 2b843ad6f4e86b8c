"""HTTP connections that cannot hold the server's memory or be held open for nothing.

uvicorn bounds neither the head of a request, nor the time that it takes to arrive, nor the time that an
answer takes to be read. Headers without end fill the memory. A client that sends a byte now and then
(Slowloris), or reads none of its answer, keeps its connection and all that is held for it for ever.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

_NOTHING_YET = -1


class PatientHttp(HttpToolsProtocol):
    """uvicorn's protocol, patient within limits."""

    head_bytes: ClassVar[int] = 64 * 1024
    """Of the request line and headers together; beyond it the answer is 431 (RFC 6585 §5)."""
    patience_seconds: ClassVar[float] = 30.0
    """For a whole head to arrive, and for the next bytes of a body that is read; then the answer is 408 (RFC
    9110 §15.5.9). For an answer that waits for its reader too; then the connection is cut off."""
    unread_bytes: ClassVar[int] = 64 * 1024
    """Of an answer, held here beside what the socket holds, before it waits for its reader."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head, self._in_body, self._ended = True, False, False
        self._head_began = self.loop.time()
        self._head_size = self._received = self._seen = 0
        self._look: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self.carrier: asyncio.Transport | None = None
        """Under TLS: what carries the encrypted bytes."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=self.unread_bytes)  # under TLS asyncio would hold 512 KiB
        self._look_in(self.patience_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._look, self._unread):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called once the client has left unread what the socket and ``unread_bytes`` hold for it."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.patience_seconds, self._cut_off)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        self._ended = False
        super().data_received(data)
        # Where a request ended in these bytes, most of them may have been its body, not the next one's head.
        if self._in_head and not self._ended:
            self._head_size += len(data)
            if self._head_size > self.head_bytes:
                self._refuse(431, f"The head is over {self.head_bytes} bytes; send fewer or shorter headers.")
        if self._look is None:
            self._look_in(self.patience_seconds)

    def on_message_begin(self) -> None:
        self._in_head, self._head_size, self._head_began = True, 0, self.loop.time()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_body, self._ended = False, True
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Called for bytes that are no HTTP, such as a length beside chunks. One program takes these for one
        request, another for two (request smuggling)."""
        self._refuse(400, f"{msg} Send HTTP/1.1 with one Content-Length or Transfer-Encoding.")

    def shutdown(self) -> None:
        """Called when the server closes."""
        super().shutdown()
        # TLS waits for the client's farewell, and an idle client may send none before it calls again.
        if self.carrier is not None and self.transport.is_closing() and not self._has_more_to_send():
            self.carrier.abort()

    def _has_more_to_send(self) -> bool:
        carried = self.carrier.get_write_buffer_size() if self.carrier is not None else 0
        return carried + self.transport.get_write_buffer_size() > 0

    def _look_in(self, seconds: float) -> None:
        # One look per connection and spell: a timer for each request would cost more than the request.
        self._look = self.loop.call_later(seconds, self._look_after)

    def _look_after(self) -> None:
        """Close the connection if its client keeps us waiting; look again while a request is coming in."""
        self._look = None
        if self.transport.is_closing() or self.transport.get_protocol() is not self:
            return
        if self._in_head:
            left = self._head_began + self.patience_seconds - self.loop.time()
            if left <= 0:
                self._refuse(408, f"The head did not arrive within {self.patience_seconds:g} s.")
            else:
                self._look_in(left)
        elif self._in_body:
            is_ours = self._is_waiting_for_us()
            if self._received == self._seen and not is_ours:
                self._refuse(408, f"No more of the body arrived within {self.patience_seconds:g} s.")
            else:
                # A client that we keep waiting has a whole spell from when we no longer do.
                self._seen = _NOTHING_YET if is_ours else self._received
                self._look_in(self.patience_seconds)

    def _cut_off(self) -> None:
        # close() would wait for ever until the client has read the rest.
        self.transport.abort()

    def _is_waiting_for_us(self) -> bool:
        return self.flow.read_paused or self.cycle.waiting_for_100_continue

    def _refuse(self, status: int, reason: str) -> None:
        if self.transport.is_closing():
            return
        error = {"message": reason, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps({"error": error}).encode()  # in the shape of OpenAI's errors, as all refusals here
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        # Where an answer has begun, another would only be taken for a part of it.
        if not (self._in_body and self.cycle.response_started):
            self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()
