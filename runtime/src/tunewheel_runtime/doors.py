"""Sockets that answer HTTP. A service has one for its API, and one for health and metrics."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Generator

import uvicorn
from starlette.types import ASGIApp

from tunewheel_runtime.http import PatientHttp
from tunewheel_runtime.settings import HttpSettings


class Door:
    """One listening socket and the app behind it. The app's lifespan is not run."""

    def __init__(
        self, app: ASGIApp, settings: HttpSettings, *, host: str, port: int, patience: float
    ) -> None:
        """Bind the socket. ``port`` 0 takes a free one; ``patience``: seconds that requests in flight get
        when it closes."""
        self._config = uvicorn.Config(
            app, host=host, port=port, log_config=None, access_log=False, lifespan="off",
            timeout_graceful_shutdown=int(patience), http=PatientHttp,
        )  # fmt: skip
        self._listener = self._config.bind_socket()
        # asyncio sets it only on sockets that name their protocol, which this one does not: without it
        # every answer on a kept connection waits 40 ms for the client's delayed ACK.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._listener.getsockname()[1]

    async def serve(self, closing: asyncio.Event) -> None:
        """Answer until ``closing`` is set and the requests in flight are done."""
        server = _Server(self._config)

        async def close() -> None:
            await closing.wait()
            server.should_exit = True

        watcher = asyncio.create_task(close())
        try:
            await server.serve(sockets=[self._listener])
        finally:
            watcher.cancel()


class _Server(uvicorn.Server):
    """uvicorn without its signal handling, which ends the process by the signal itself, not with code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield
