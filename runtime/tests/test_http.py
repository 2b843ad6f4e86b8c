"""Connections that would hold the server: each is answered and closed; patient clients are not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, ClassVar

import pytest
from tunewheel_runtime.http import PatientHttp
from tunewheel_testing import served
from tunewheel_testing.waiting import until

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Impatient(PatientHttp):
    patience_seconds = 0.3


class LooksWhenTold(PatientHttp):
    """Looks after its connection when the test says so: no test of patience needs any."""

    head_bytes = 2_000
    newest: ClassVar[LooksWhenTold | None] = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        LooksWhenTold.newest = self

    def is_waiting_for_us(self) -> bool:
        return self.cycle is not None and self._is_waiting_for_us()

    def is_waiting_for_its_reader(self) -> bool:
        return self._unread is not None and not self._unread.cancelled()

    def look_again(self) -> None:
        self._look_after()

    def let_patience_pass(self) -> None:
        """Make it as late as if the head had begun to come so long before."""
        self._head_began -= self.patience_seconds

    def has_received(self, size: int) -> bool:
        return self._received >= size

    def _look_in(self, seconds: float) -> None:
        assert seconds > 0


class App:
    """Reads the body when it is allowed to and answers with its length."""

    def __init__(self) -> None:
        self.may_read = asyncio.Event()
        self.may_read.set()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        size, more = 0, True
        await self.may_read.wait()
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            size, more = size + len(message["body"]), message["more_body"]
        body = str(size).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(app: App, protocol: type[PatientHttp] = LooksWhenTold) -> AsyncIterator[int]:
    LooksWhenTold.newest = None
    async with served.serving(app, protocol) as url:
        yield int(url.rpartition(":")[2])


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


class Endless:
    """Answers without end; ``ended`` once it is told that nobody reads."""

    def __init__(self, size: int) -> None:
        self.ended = asyncio.Event()
        self._piece = b"x" * size

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        answering = asyncio.create_task(self._answer(send))
        assert (await receive())["type"] == "http.disconnect"
        answering.cancel()
        self.ended.set()

    async def _answer(self, send: Any) -> None:
        while True:
            await send({"type": "http.response.body", "body": self._piece, "more_body": True})
            await asyncio.sleep(0)


async def status(reader: asyncio.StreamReader) -> int:
    line = await asyncio.wait_for(reader.readline(), 60)
    return int(line.split()[1])


async def pour(writer: asyncio.StreamWriter, data: bytes) -> None:
    """Send ``data`` for as long as the other end takes it."""
    with contextlib.suppress(ConnectionError):
        for _ in range(1_000):
            writer.write(data)
            await writer.drain()
            await asyncio.sleep(0)


async def test_headers_without_end_are_refused() -> None:
    for endless in (b"X-Header: value\r\n", b"v" * 100):
        async with serving(App()) as port, connected(port) as (reader, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-First: ")
            pouring = asyncio.create_task(pour(writer, endless))
            assert await status(reader) == 431
            pouring.cancel()


async def connection(*, received: int = 0) -> LooksWhenTold:
    """The server's end of the only connection, once it is there and has received so many bytes."""
    while (found := LooksWhenTold.newest) is None or not found.has_received(received):
        await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\nHost: x", b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf"]
)
async def test_a_client_that_stops_sending_is_answered_and_closed(sent: bytes) -> None:
    """Its connection is looked after by itself, in head and body."""
    async with serving(App(), Impatient) as port, connected(port) as (reader, writer):
        writer.write(sent)
        assert await status(reader) == 408
        answer = await asyncio.wait_for(reader.read(), 60)
        error = json.loads(answer.partition(b"\r\n\r\n")[2])["error"]
        assert error["message"].endswith("within 0.3 s.")


async def test_a_head_that_comes_byte_by_byte_has_no_longer_than_any_other() -> None:
    async with serving(App()) as port, connected(port) as (reader, writer):
        for received in (1, 2):
            writer.write(b"G" if received == 1 else b"E")
            server = await connection(received=received)
            server.look_again()
        server.let_patience_pass()
        writer.write(b"T")
        (await connection(received=3)).look_again()
        assert await status(reader) == 408


async def test_a_body_that_stops_arriving_ends_the_connection() -> None:
    head, received = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n", 0
    async with serving(App()) as port, connected(port) as (reader, writer):
        for piece in (head, b"ha", b"lf"):
            writer.write(piece)
            received += len(piece)
            (await connection(received=received)).look_again()
        (await connection()).look_again()
        assert await status(reader) == 408


@pytest.mark.parametrize("expecting", [b"", b"Expect: 100-continue\r\n"], ids=["at once", "when told"])
async def test_a_body_that_waits_for_the_service_is_waited_for(expecting: bytes) -> None:
    app, size = App(), 1 << 20
    app.may_read.clear()
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % size + expecting + b"\r\n")
        if not expecting:
            writer.write(b"0" * size)
        server = await connection()
        await until(server.is_waiting_for_us)
        for _ in range(4):
            server.look_again()
        app.may_read.set()
        await until(lambda: not server.is_waiting_for_us())
        server.look_again()  # before a byte that it now asks for has come
        if expecting:
            assert await status(reader) == 100
            await reader.readline()
            writer.write(b"0" * size)
        assert await status(reader) == 200


async def test_a_client_that_sends_nothing_when_it_is_no_longer_kept_waiting_is_not_waited_for() -> None:
    app = App()
    app.may_read.clear()
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        server = await connection()
        await until(server.is_waiting_for_us)
        server.look_again()
        app.may_read.set()
        assert await status(reader) == 100
        await reader.readline()
        server.look_again()
        server.look_again()
        assert await status(reader) == 408


async def test_an_answer_may_take_longer_than_a_request() -> None:
    app = App()
    app.may_read.clear()
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server = await connection(received=1)
        for _ in range(4):
            server.let_patience_pass()
            server.look_again()
        app.may_read.set()
        assert await status(reader) == 200


async def test_a_client_that_does_not_read_its_answer_is_cut_off() -> None:
    app = Endless(1 << 16)
    async with serving(app, Impatient) as port, connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(app.ended.wait(), 60)
        # What lay between the two can still be read, and then there is no more.
        with contextlib.suppress(ConnectionError):
            while await asyncio.wait_for(reader.read(1 << 20), 60):
                pass


async def test_a_client_is_sent_more_as_long_as_it_reads() -> None:
    app = Endless(1 << 12)
    async with serving(app, LooksWhenTold) as port, connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        server = await connection(received=1)
        for _ in range(3):
            await until(server.is_waiting_for_its_reader)
            while server.is_waiting_for_its_reader():
                assert await reader.read(1 << 16)
        assert not app.ended.is_set()


async def test_a_connection_that_is_kept_takes_one_request_after_another() -> None:
    async with serving(App()) as port, connected(port) as (reader, writer):
        for _ in range(4):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nfour")
            assert await status(reader) == 200
            while (await reader.readline()).strip():
                pass
            assert await reader.readexactly(1) == b"4"
            server = await connection()
            server.let_patience_pass()
            server.look_again()


async def test_requests_that_come_before_the_answers_to_earlier_ones_keep_their_bodies() -> None:
    async with serving(App()) as port, connected(port) as (reader, writer):
        bodies = (b"four", b"", b"seventy")
        request = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b"
        writer.write(b"".join(request % (len(body), body) for body in bodies))
        for body in bodies:
            assert await status(reader) == 200
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
            assert await reader.readexactly(1) == b"%d" % len(body)


async def test_the_end_of_a_body_is_no_part_of_the_next_head() -> None:
    """A client that is answered early sends the rest of its body and its next head in one go."""
    async with serving(App()) as port, connected(port) as (reader, writer):
        size = 2 * LooksWhenTold.head_bytes
        writer.write(b"POST / HTTP/1.1\r\nhost: h\r\ncontent-length: %d\r\n\r\n" % size)
        await connection(received=1)
        writer.write(b"x" * size + b"GET / HTTP/1.1\r\nho")
        assert await status(reader) == 200
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        await asyncio.wait_for(reader.readexactly(len(str(size))), 60)
        writer.write(b"st: h\r\n\r\n")
        assert await status(reader) == 200


ASKS = b"Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAEAAEAAAAIAAAAB\r\nUpgrade: h2c\r\n"
"""What Java's ``HttpClient`` sends with its first request without TLS."""


def _posts(body: bytes, more: bytes = b"") -> bytes:
    return b"POST / HTTP/1.1\r\nHost: x\r\n%s%sContent-Length: %d\r\n\r\n%s" % (ASKS, more, len(body), body)


def _chunked(body: bytes) -> bytes:
    head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n%s\r\n" % ASKS
    return head + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


async def _sizes(reader: asyncio.StreamReader, number: int) -> list[int]:
    """Return the lengths of the bodies that so many requests had."""
    sizes: list[int] = []
    for _ in range(number):
        assert await status(reader) == 200
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 60)
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        sizes.append(int(await reader.readexactly(int(length.split(b":")[1]))))
    return sizes


@pytest.mark.parametrize("asked", [_posts, _chunked], ids=["length", "chunks"])
@pytest.mark.parametrize("piece", [1, 7, 1_000_000])
async def test_a_request_for_another_protocol_keeps_its_body(asked: Any, piece: int) -> None:
    body = b"Upgrade: h2c\r\n\r\nPOST / HTTP/1.1\r\n\r\n" * 3
    sent = asked(body) + asked(b"again") + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    async with serving(App()) as port, connected(port) as (reader, writer):
        for at in range(0, len(sent), piece):
            writer.write(sent[at : at + piece])
            await writer.drain()
        assert await _sizes(reader, 3) == [len(body), 5, 0]


async def test_many_requests_for_another_protocol_at_once_are_answered() -> None:
    sent = (_posts(b"") + b"GET / HTTP/1.1\r\nHost: x\r\n" + ASKS + b"\r\n") * 400
    async with serving(App()) as port, connected(port) as (reader, writer):
        writer.write(sent)
        assert await _sizes(reader, 800) == [0] * 800


@pytest.mark.parametrize("more", [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 3\r\n"])
async def test_asking_for_another_protocol_smuggles_nothing(more: bytes) -> None:
    async with serving(App()) as port, connected(port) as (reader, writer):
        writer.write(_posts(b"0\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n", more))
        assert await status(reader) == 400
        rest = await asyncio.wait_for(reader.read(), 60)
        assert b" 200 " not in rest
