"""Creates a span for each HTTP request, in its caller's trace. All that the request causes belongs to that
trace."""

from __future__ import annotations

from collections.abc import Awaitable

from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer
from starlette.routing import BaseRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunewheel_runtime.telemetry import extract

_CARRIERS = (b"traceparent", b"tracestate")
LONGEST_PATH = 200


class HttpSpans:
    """ASGI middleware for services that export traces. Attributes are named by OpenTelemetry's semantic
    conventions for HTTP servers. Bodies, queries and error messages are not recorded."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of the wrapped app."""
        return getattr(self._app, "routes", [])

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

            def send_and_note(
                message: Message,
            ) -> Awaitable[None]:  # Not async: saves a coroutine per message.
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
