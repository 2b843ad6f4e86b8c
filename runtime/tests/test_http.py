"""Connections that would hold the server: each is answered and closed; patient clients are not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from tunewheel_runtime.http import PatientHttp

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Impatient(PatientHttp):
    head_bytes = 2_000
    patience_seconds = 0.3


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
async def serving(app: App) -> AsyncIterator[int]:
    config = uvicorn.Config(app, port=0, lifespan="off", http=Impatient, log_config=None)
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[Stream]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()


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


async def test_a_head_that_does_not_arrive_ends_the_connection() -> None:
    async with serving(App()) as port, connected(port) as (reader, writer):
        dripping = asyncio.create_task(pour_slowly(writer, b"GET / HTTP/1.1\r\nHost: " + b"x" * 1_000))
        assert await status(reader) == 408
        assert (await asyncio.wait_for(reader.read(), 60)).endswith(b"within 0.3 s.")
        dripping.cancel()


async def pour_slowly(writer: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        for n in range(len(data)):
            writer.write(data[n : n + 1])
            await writer.drain()
            await asyncio.sleep(0.02)


async def test_a_body_that_stops_arriving_ends_the_connection() -> None:
    async with serving(App()) as port, connected(port) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")
        assert await status(reader) == 408


async def test_a_body_that_waits_for_the_service_is_waited_for() -> None:
    app = App()
    app.may_read.clear()
    size = 1 << 20
    for expecting in (b"", b"Expect: 100-continue\r\n"):
        app.may_read.clear()
        async with serving(app) as port, connected(port) as (reader, writer):
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % size
            writer.write(head + expecting + b"\r\n")
            if not expecting:
                writer.write(b"0" * size)
            await asyncio.sleep(4 * Impatient.patience_seconds)  # it would be closed in the meantime
            app.may_read.set()
            found = await status(reader)
            if expecting:
                assert found == 100
                await reader.readline()
                writer.write(b"0" * size)
                found = await status(reader)
            assert found == 200


async def test_an_answer_may_take_longer_than_a_request() -> None:
    app = App()
    app.may_read.clear()
    async with serving(app) as port, connected(port) as (reader, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.sleep(4 * Impatient.patience_seconds)
        app.may_read.set()
        assert await status(reader) == 200


async def test_a_connection_that_is_kept_takes_one_request_after_another() -> None:
    async with serving(App()) as port, connected(port) as (reader, writer):
        for _ in range(4):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nfour")
            assert await status(reader) == 200
            while (await reader.readline()).strip():
                pass
            assert await reader.readexactly(1) == b"4"
            await asyncio.sleep(Impatient.patience_seconds / 2)
