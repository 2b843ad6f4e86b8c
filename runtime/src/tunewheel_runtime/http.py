"""Limits the memory and the time that a client's HTTP connection can take, and answers clients that would
rather speak another protocol.

uvicorn has no limit for the size of a request's head, for the time until it has arrived, or for the time in
which an answer is read. Endless headers would fill the memory. A client that sends a byte now and then
(Slowloris), or never reads its answer, would keep its connection and its memory for ever.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any, ClassVar

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from starlette.types import Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from tunewheel_runtime.identity.guard import has_caller

_NOTHING_YET = -1
_CONNECTION = "tunewheel.connection"


class Places:
    """The connections of one door, ``most`` at the same time.

    When all places are taken, the oldest connection that has shown no key gives way to a new one. Where all
    have shown a key, the new one is closed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._strangers: dict[PatientHttp, None] = {}
        """Connections in the order in which they came. Those that have shown a key since are moved when they
        are looked at."""
        self._keyed: set[PatientHttp] = set()

    def enter(self, connection: PatientHttp) -> None:
        self._strangers[connection] = None
        while len(self._strangers) + len(self._keyed) > self._most:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            if oldest.has_shown_key():
                self._keyed.add(oldest)
            else:
                oldest.abort()

    def leave(self, connection: PatientHttp) -> None:
        self._strangers.pop(connection, None)
        self._keyed.discard(connection)


def connection_of(scope: Scope) -> PatientHttp | None:
    """Return the connection of a request; None: another server than the runtime's received it, so nobody
    tells when the client leaves."""
    return scope.get(_CONNECTION)


class PatientHttp(HttpToolsProtocol):
    """uvicorn's protocol with limits of size and time."""

    head_bytes: ClassVar[int] = 64 * 1024
    """Most bytes of request line and headers together. A larger head is answered 431 (RFC 6585 §5)."""
    patience_seconds: ClassVar[float] = 30.0
    """Longest wait for a whole head, or for the next bytes of a body; then the answer is 408 (RFC 9110
    §15.5.9). Also the longest wait for the client to read an answer; then the connection is closed."""
    unread_bytes: ClassVar[int] = 64 * 1024
    """Most bytes of an unread answer that are buffered here, besides those in the socket's buffer. Then
    writing waits for the client."""

    def __init__(self, *args: Any, places: Places | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._places = places
        self._has_key = False
        self._in_head, self._in_body, self._ended = True, False, False
        self._head_began = self.loop.time()
        self._head_size = self._received = self._seen = 0
        self._look: asyncio.TimerHandle | None = None
        self._unread: asyncio.TimerHandle | None = None
        self._is_lost = False
        self._on_lost: Callable[[], None] | None = None
        self.carrier: asyncio.Transport | None = None
        """The transport of the socket. Under TLS it carries the encrypted bytes."""

    def enter(self, transport: asyncio.Transport) -> None:
        """Take a place. Under TLS this happens before the handshake, which ``connection_made`` follows."""
        if self.carrier is None:
            self.carrier = transport
            if self._places is not None:
                self._places.enter(self)

    def leave(self) -> None:
        if self._places is not None:
            self._places.leave(self)

    def abort(self) -> None:
        assert self.carrier is not None
        self.carrier.abort()

    def has_shown_key(self) -> bool:
        cycle: Any = self.cycle  # None before the first request
        return self._has_key or (cycle is not None and has_caller(cycle.scope))

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.enter(transport)
        transport.set_write_buffer_limits(high=self.unread_bytes)  # Under TLS asyncio's default is 512 KiB.
        self._look_in(self.patience_seconds)

    def watch(self, on_lost: Callable[[], None] | None) -> None:
        """Have ``on_lost`` called once the client has left; None: no more. For the request that is answered
        now, which need not wait for ``receive`` in a task of its own."""
        self._on_lost = on_lost
        if self._is_lost and on_lost is not None:
            on_lost()

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_lost = True
        if self._on_lost is not None:
            self._on_lost()
        for timer in (self._look, self._unread):
            if timer is not None:
                timer.cancel()
        self.leave()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Called when the socket's buffer and ``unread_bytes`` are full of data that the client has not
        read."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.patience_seconds, self._cut_off)

    def resume_writing(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        self._received += len(data)
        self._ended = False
        self._unset_keepalive_if_required()
        try:
            self._feed(data)
        except HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        # If a request ended in these bytes, most of them may belong to its body and not to the next head.
        if self._in_head and not self._ended:
            self._head_size += len(data)
            if self._head_size > self.head_bytes:
                self._refuse(431, f"The head is over {self.head_bytes} bytes; send fewer or shorter headers.")
        if self._look is None:
            self._look_in(self.patience_seconds)

    def _feed(self, data: bytes) -> None:
        """Parse ``data``. A request for another protocol is answered by this one (RFC 9110 §7.8).

        Java's client asks for HTTP/2 (``h2c``) in the first request of a connection without TLS.

        httptools reads no body after such a head. Another parser reads it then.
        """
        while True:
            try:
                return self.parser.feed_data(data)
            except HttpParserUpgrade as upgrade:
                if self._should_upgrade():
                    return self.handle_websocket_upgrade()
                data = data[upgrade.args[0] :]
            version = self.parser.get_http_version().encode()
            head = b"".join(b"%s: %s\r\n" % one for one in self._framing())
            rest = _WithoutUpgrade(self)
            self.parser = HttpRequestParser(rest)
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            if head:
                self.parser.feed_data(b"POST / HTTP/%s\r\n%s\r\n" % (version, head))
            rest.has_head = False

    def _framing(self) -> list[tuple[bytes, bytes]]:
        """Return the headers that tell where the body of the newest request ends."""
        return [one for one in self.headers if one[0] in (b"content-length", b"transfer-encoding")]

    def on_message_begin(self) -> None:
        self._in_head, self._head_size, self._head_began = True, 0, self.loop.time()
        super().on_message_begin()
        scope: Any = self.scope
        scope[_CONNECTION] = self

    def on_headers_complete(self) -> None:
        self._in_head, self._in_body = False, True
        self._has_key = self.has_shown_key()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade() and not self._should_upgrade() and self._framing():
            return  # Its body is still to come.
        self._in_body, self._ended = False, True
        super().on_message_complete()

    def on_response_complete(self) -> None:
        # Drop the part of a refused body that had come: the connection may stay for long. But a pipelined
        # request, which is the newest cycle then, keeps its body.
        if self.cycle.response_complete:
            self.cycle.body = bytearray()
        super().on_response_complete()

    def handle_websocket_upgrade(self) -> None:
        self.leave()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Called for bytes that are not valid HTTP, such as a length together with chunks. One program could
        read these as one request, and another as two (request smuggling)."""
        self._refuse(400, f"{msg} Send HTTP/1.1 with one Content-Length or Transfer-Encoding.")

    def shutdown(self) -> None:
        """Called when the server closes."""
        if not self.transport.is_closing():  # asyncio loses what TLS has yet to send if it is closed twice
            super().shutdown()
        # TLS waits for the client's close_notify, which an idle client may not send until its next request.
        is_tls = self.carrier is not None and self.carrier is not self.transport
        if is_tls and self.transport.is_closing() and not self._has_more_to_send():
            self.abort()

    def _has_more_to_send(self) -> bool:
        carried = self.carrier.get_write_buffer_size() if self.carrier is not None else 0
        return carried + self.transport.get_write_buffer_size() > 0

    def _look_in(self, seconds: float) -> None:
        # One timer per connection and waiting period: a timer per request would cost more than the request.
        self._look = self.loop.call_later(seconds, self._look_after)

    def _look_after(self) -> None:
        """Close the connection if the server has waited too long for the client. Check again while a request
        is arriving."""
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
                # A client that waits for the server gets the full time once the server waits for it.
                self._seen = _NOTHING_YET if is_ours else self._received
                self._look_in(self.patience_seconds)

    def _cut_off(self) -> None:
        # close() would wait until the client has read the rest, perhaps for ever.
        self.transport.abort()

    def _is_waiting_for_us(self) -> bool:
        return self.flow.read_paused or self.cycle.waiting_for_100_continue

    def _refuse(self, status: int, reason: str) -> None:
        if self.transport.is_closing():
            return
        error = {"message": reason, "type": "invalid_request_error", "param": None, "code": None}
        body = json.dumps(
            {"error": error}
        ).encode()  # OpenAI's error shape, as in all refusals of the runtime
        head = f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
        # If an answer has begun, the client would read a second one as part of it.
        if not (self._in_body and self.cycle.response_started):
            self.transport.write(STATUS_LINE[status] + head.encode() + body)
        self.transport.close()


class _WithoutUpgrade:
    """What a parser calls that takes over a connection after the head of a request.

    ``has_head``: the protocol knows the head that is being parsed.
    """

    def __init__(self, http: PatientHttp) -> None:
        self.has_head = True
        self._http = http
        self.on_body = http.on_body
        self.on_message_complete = http.on_message_complete

    def on_message_begin(self) -> None:
        if not self.has_head:
            self._http.on_message_begin()

    def on_url(self, url: bytes) -> None:
        if not self.has_head:
            self._http.on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.has_head:
            self._http.on_header(name, value)

    def on_headers_complete(self) -> None:
        if not self.has_head:
            self._http.on_headers_complete()
