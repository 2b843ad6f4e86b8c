"""One name for each request: on its answer, and on every log line that is written while it is answered."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable

import structlog
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""What may stand in a log and in a header as it is, and is no way to fill either."""


def request_id_of(scope: Scope) -> str:
    """Return the client's ``x-request-id`` where it sends one that can be used, else a new one."""
    for name, value in scope["headers"]:
        if name == HEADER:
            return value.decode() if _SANE.fullmatch(value) else _new()
    return _new()


def _new() -> str:
    return f"req_{uuid.uuid4().hex}"


class RequestIds:
    """ASGI middleware around everything that a door answers, its own refusals included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    @property
    def routes(self) -> list[BaseRoute]:
        """Of the app within."""
        return getattr(self._app, "routes", [])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        told = (HEADER, request_id.encode())

        def send_with_id(message: Message) -> Awaitable[None]:  # no coroutine of its own for each piece
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), told]
            return send(message)

        # Each request has a task, and with it a context of its own.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        await self._app(scope, receive, send_with_id)
