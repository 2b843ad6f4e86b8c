"""Serves an ASGI app on loopback from a thread, for clients that need a socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvicorn


@contextmanager
def served(app: Any, *, certificate: tuple[Path, Path] | None = None) -> Generator[str]:
    """Serve ``app`` until the block ends; yields the address. ``certificate``: the PEM files by which it
    speaks HTTPS, the second with the key."""
    door = socket.create_server(("127.0.0.1", 0))
    files = dict(zip(("ssl_certfile", "ssl_keyfile"), certificate or (), strict=False))
    told: dict[str, Any] = {"log_level": "error", "lifespan": "off", "ws": "none", **files}
    server = uvicorn.Server(uvicorn.Config(app, **told))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
    thread.start()
    try:
        yield f"http{'s' if certificate else ''}://127.0.0.1:{door.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        door.close()
