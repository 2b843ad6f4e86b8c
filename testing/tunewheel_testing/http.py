"""A server that answers as a test says, over a real socket."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


@asynccontextmanager
async def answering(answer: Callable[[web.Request, Any], tuple[int, Any]]) -> AsyncIterator[str]:
    """Answer a request with the status and the JSON that ``answer`` returns for it and its body; yields the
    address."""

    async def handle(request: web.Request) -> web.Response:
        content = await request.read()
        body = json.loads(content) if content and request.content_type == "application/json" else None
        status, told = answer(request, body)
        return web.json_response(told, status=status)

    server = web.Application()
    server.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(server)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
