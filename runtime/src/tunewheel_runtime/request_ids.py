"""Gives each request an id, which is in the answer and in every log line written for the request, and a span
in its caller's trace, to which all belongs that the request causes."""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable
from contextvars import ContextVar

import structlog
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunewheel_runtime.middleware import Middleware
from tunewheel_runtime.telemetry import carried, extract

HEADER = b"x-request-id"
_SANE = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
"""Ids of clients that are accepted: short, and safe to write into a log and a header."""


_PRESENT: ContextVar[str | None] = ContextVar("request_id", default=None)


def outgoing() -> dict[str, str]:
    """Return the headers with which the present request asks another server: its trace, and its id.

    The id gets an end of its own each time: servers such as vLLM refuse an id that they are working on, and a
    client may send one id twice.
    """
    request_id = _PRESENT.get()
    ids = {HEADER.decode(): f"{request_id}-{os.urandom(4).hex()}"} if request_id else {}
    return carried() | ids


def request_id_of(scope: Scope) -> str:
    """Return the client's ``x-request-id`` if it is acceptable, else a new id."""
    for name, value in scope["headers"]:
        if name == HEADER:
            return value.decode() if _SANE.fullmatch(value) else _new()
    return _new()


def _new() -> str:
    return f"req_{os.urandom(16).hex()}"


class RequestIds(Middleware):
    """ASGI middleware around all answers of a door, including its own refusals."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = request_id_of(scope)
        header = (HEADER, request_id.encode())

        def send_with_id(message: Message) -> Awaitable[None]:  # Not async: saves a coroutine per message.
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), header]
            return send(message)

        # Each request runs in its own task, and so in its own context.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        _PRESENT.set(request_id)
        await self._app(scope, receive, send_with_id)


_CARRIERS = (b"traceparent", b"tracestate")
LONGEST_PATH = 200


class HttpSpans(Middleware):
    """ASGI middleware for services that export traces. Attributes are named by OpenTelemetry's semantic
    conventions for HTTP servers. Bodies, queries and error messages are not recorded."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        super().__init__(app)
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        carried = {name.decode(): value for name, value in scope["headers"] if name in _CARRIERS}
        method = scope["method"]
        attributes = {"http.request.method": method, "url.path": scope["path"][:LONGEST_PATH]}
        with self._tracer.start_as_current_span(
            method, context=extract(carried), kind=SpanKind.SERVER, attributes=attributes,
            record_exception=False, set_status_on_exception=False,
        ) as span:  # fmt: skip
            # Not async: saves a coroutine per message.
            def send_and_note(message: Message) -> Awaitable[None]:
                if message["type"] == "http.response.start":
                    status = message["status"]
                    span.set_attribute("http.response.status_code", status)
                    if status >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                return send(message)

            try:
                await self._app(scope, receive, send_and_note)
            except Exception:
                span.set_status(Status(StatusCode.ERROR))
                raise
