"""Serves an ASGI app on loopback, for clients that need a socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from tunewheel_runtime.http import PatientHttp
from tunewheel_runtime.waiting import end_all

_GRACE_SECONDS = 0.1


class _Server(uvicorn.Server):
    """Speaks HTTP as the services' doors do, and ends when ``end`` says so.

    uvicorn would look ten times a second whether it should end. Then it would wait a tenth of a second even
    if it answered nobody. Hundreds of tests start a server.
    """

    def __init__(self, app: Any, http: type[PatientHttp] = PatientHttp, files: Sequence[Path] = ()) -> None:
        # A connection that a test keeps must not be closed just when the test asks again.
        config = uvicorn.Config(
            app, http=http, log_config=None, lifespan="off", ws="none", timeout_keep_alive=600,
            ssl_certfile=files[0] if files else None, ssl_keyfile=files[1] if files else None,
        )  # fmt: skip
        super().__init__(config)
        self.door = socket.create_server(("127.0.0.1", 0))  # clients that come before it is served wait
        # As the services' doors have it: without it each answer waits 40 ms for the client's delayed ACK.
        self.door.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = f"127.0.0.1:{self.door.getsockname()[1]}"
        self._ended: Future[None] = Future()

    def end(self) -> None:
        """Have ``serve`` end; from any thread."""
        self._ended.set_result(None)

    async def main_loop(self) -> None:
        ended = asyncio.wrap_future(self._ended)
        while not ended.done():
            await self.on_tick(0)  # dates the answers of the next second
            await asyncio.wait({ended}, timeout=1)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for listener in self.servers:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        running = set(self.server_state.tasks)
        if running:
            await asyncio.wait(running, timeout=_GRACE_SECONDS)
        # What is answered for ever is cut off, and so is a client of TLS that keeps its connection.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await end_all(*running)

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@contextmanager
def served(app: Any, *, certificate: tuple[Path, Path] | None = None) -> Generator[str]:
    """Serve ``app`` from a thread until the block ends; yields the address. ``certificate``: the PEM files by
    which it speaks HTTPS, the second with the key."""
    server = _Server(app, files=certificate or ())
    thread = threading.Thread(target=server.run, kwargs={"sockets": [server.door]}, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://{server.address}"
    finally:
        server.end()
        thread.join(10)
        server.door.close()


@asynccontextmanager
async def serving(app: Any, http: type[PatientHttp] = PatientHttp) -> AsyncGenerator[str]:
    """Serve ``app`` in this event loop until the block ends, endless answers too; yields the address."""
    server = _Server(app, http)
    task = asyncio.create_task(server.serve(sockets=[server.door]))
    try:
        yield f"http://{server.address}"
    finally:
        server.end()
        await task
        server.door.close()
