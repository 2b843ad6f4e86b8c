"""The least that a gateway in Python can do: raw ASGI in front, aiohttp behind, every byte passed on.

``python gateway_floor.py PORT ENGINE_URL``
"""

from __future__ import annotations

import sys
from typing import Any

import aiohttp
import uvicorn


def make_app(engine: str) -> Any:
    session: aiohttp.ClientSession | None = None

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal session
        if session is None:
            session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        parts: list[bytes] = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        headers = {"content-type": "application/json"}
        async with session.post(engine + scope["path"], data=b"".join(parts), headers=headers) as answer:
            kind = answer.headers["content-type"].encode()
            start = {
                "type": "http.response.start",
                "status": answer.status,
                "headers": [(b"content-type", kind)],
            }
            await send(start)
            async for part in answer.content.iter_any():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    return app


if __name__ == "__main__":
    uvicorn.run(
        make_app(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="error",
        access_log=False,
    )
