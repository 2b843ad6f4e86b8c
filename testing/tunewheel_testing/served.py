"""Serves an ASGI app on loopback, for clients that need a socket."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import uvicorn
from tunewheel_runtime.http import PatientHttp


def _server(app: Any, **options: Any) -> uvicorn.Server:
    """Return a server that speaks HTTP as the services' doors do."""
    config = uvicorn.Config(app, http=PatientHttp, log_level="error", lifespan="off", ws="none", **options)
    return uvicorn.Server(config)


@contextmanager
def served(app: Any, *, certificate: tuple[Path, Path] | None = None) -> Generator[str]:
    """Serve ``app`` from a thread until the block ends; yields the address. ``certificate``: the PEM files by
    which it speaks HTTPS, the second with the key."""
    door = socket.create_server(("127.0.0.1", 0))
    server = _server(app, **dict(zip(("ssl_certfile", "ssl_keyfile"), certificate or (), strict=False)))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{door.getsockname()[1]}"
    finally:
        # A client that keeps its connection, as one of TLS does, would be waited for.
        server.should_exit = server.force_exit = True
        thread.join(10)
        door.close()


@asynccontextmanager
async def serving(app: Any) -> AsyncGenerator[str]:
    """Serve ``app`` in this event loop until the block ends, endless answers too; yields the address."""
    door = socket.create_server(("127.0.0.1", 0))
    server = _server(app)
    task = asyncio.create_task(server.serve(sockets=[door]))
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        server.should_exit = server.force_exit = True
        await task
        door.close()
