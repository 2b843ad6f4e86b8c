"""Gives each request an id, which is in the answer and in every log line written for the request."""

from __future__ import annotations

import re
import uuid
from collections.abc import Awaitable

import structlog
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""Ids of clients that are accepted: short, and safe to write into a log and a header."""


def request_id_of(scope: Scope) -> str:
    """Return the client's ``x-request-id`` if it is acceptable, else a new id."""
    for name, value in scope["headers"]:
        if name == HEADER:
            return value.decode() if _SANE.fullmatch(value) else _new()
    return _new()


def _new() -> str:
    return f"req_{uuid.uuid4().hex}"


class RequestIds:
    """ASGI middleware around all answers of a door, including its own refusals."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of the wrapped app."""
        return getattr(self._app, "routes", [])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        told = (HEADER, request_id.encode())

        def send_with_id(message: Message) -> Awaitable[None]:  # Not async: saves a coroutine per message.
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), told]
            return send(message)

        # Each request runs in its own task, and so in its own context.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        await self._app(scope, receive, send_with_id)
