"""The two HTTP doors of a service: its API, which identifies callers, and health and metrics, which answer
anybody."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Sequence

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tunewheel_runtime.admission import Admission
from tunewheel_runtime.doors import Door
from tunewheel_runtime.health import Health, health_routes
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.prometheus import CONTENT_TYPE
from tunewheel_runtime.request_ids import HttpSpans, RequestIds
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.telemetry import Telemetry
from tunewheel_runtime.tls import Certificate, certificate_of, tell_of_clear_text


class ServiceDoors:
    def __init__(self, name: str, settings: ServiceSettings, telemetry: Telemetry, health: Health) -> None:
        self._name = name
        self._settings = settings
        self._telemetry = telemetry
        self._health = health
        self.access = Access(settings, warn=health.warn)
        """Identifies callers and the principals of events, with their roles."""
        self._asks_who = False
        self.mounted: Starlette | None = None
        self._any_content: Sequence[str] = ()
        self._doors: list[Door] = []
        self.http_port: int | None = None
        """Port of the API; None until it listens."""
        self.health_port: int | None = None
        """Port of health and metrics; None until it listens."""

    def mount(self, app: Starlette, *, any_content: Sequence[str] = ()) -> None:
        """Serve ``app``, whose routes name the roles that they need (``identity.guard``).

        Args:
            any_content: prefixes of paths that accept bodies other than JSON (``Admission``).

        Raises:
            UnguardedRoute: a route names no role.
        """
        guard(app.routes, self.access)
        self.mounted, self._any_content = app, any_content
        self.ask_who()

    def ask_who(self) -> None:
        """Refuse to start if callers cannot be identified. For a service that has callers, or that trusts the
        principals in events."""
        self._asks_who = True

    def require_identity(self) -> None:
        """Raise ``NoIdentity`` if callers could not be identified."""
        if self._asks_who:
            host = self._settings.http_host if self.mounted is not None else "localhost"
            self.access.require_identity(self._name, host=host)

    def begin(self) -> None:
        """Begin to fetch the keys of the issuer of tokens, if the service has callers."""
        if self.mounted is not None:
            self.access.begin()

    def asgi(self) -> RequestIds:
        """Return the app of the API. The mounted app is wrapped by the admission directly: another Starlette
        between them would cost two calls per piece of a streamed answer."""
        assert self.mounted is not None
        app: ASGIApp = self.mounted
        if self._health.leadership is not None:
            app = ReadingFirst(app, lambda: self._health.is_reading)
        app = Admission(app, self._settings, any_content=self._any_content)
        return RequestIds(HttpSpans(app, self._telemetry.tracer) if self._telemetry.traces else app)

    def health_asgi(self) -> Starlette:
        """Return the app of health and metrics, which anybody may call."""

        async def metrics(
            _: Request,
        ) -> PlainTextResponse:  # async: the gauges must be read in the event loop.
            return PlainTextResponse(self._telemetry.metrics_text(), media_type=CONTENT_TYPE)

        routes = [*health_routes(self._health.state), Route("/metrics", metrics)]
        return Starlette(routes=routes, middleware=[Middleware(Admission, self._settings)])

    def open(self) -> None:
        """Listen. Clients that connect before ``serve`` wait for it. Raises InvalidTls: the certificate or
        its key cannot be used."""
        settings = self._settings
        certificate = certificate_of(settings, warn=self._health.warn)
        health_host = settings.health_host or settings.http_host
        health = self._door(
            self.health_asgi(), health_host, settings.health_port, certificate, for_health=True
        )
        self._doors = [health]
        self.health_port = self._doors[0].port
        if self.mounted is not None:
            tell_of_clear_text(settings)
            self._doors.append(self._door(self.asgi(), settings.http_host, settings.http_port, certificate))
            self.http_port = self._doors[1].port

    async def serve(self, stopping: asyncio.Event) -> None:
        """Answer until ``stopping`` is set and the running requests are done."""
        await asyncio.gather(*(door.serve(stopping) for door in self._doors))

    @contextlib.asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Run the mounted app's lifespan around the ``with`` block."""
        async with contextlib.AsyncExitStack() as stack:
            if self.mounted is not None:
                await stack.enter_async_context(self.mounted.router.lifespan_context(self.mounted))
            yield

    def _door(
        self, app: ASGIApp, host: str, port: int, certificate: Certificate | None, *, for_health: bool = False
    ) -> Door:
        patience = self._settings.shutdown_seconds
        return Door(
            app, host=host, port=port, patience=patience, certificate=certificate, for_health=for_health
        )


class ReadingFirst:
    """ASGI middleware: while the process has not read the log to its end it answers 503, since answers from
    incomplete data would be wrong. It also closes the connection: the next one may reach a process that is
    ready."""

    def __init__(self, app: ASGIApp, is_reading: Callable[[], bool]) -> None:
        self._app = app
        self._is_reading = is_reading
        self.routes = getattr(app, "routes", [])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_reading():
            reason = "this process has not read the log to its end yet; send the request again"
            headers = {"retry-after": "1", "connection": "close"}
            error = {"message": reason, "type": "server_error", "param": None, "code": "away"}
            refusal = JSONResponse({"error": error}, status_code=503, headers=headers)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)
