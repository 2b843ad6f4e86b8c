"""Liveness and readiness over HTTP. ``python -m tunewheel_runtime.health`` is the probe."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address

import structlog
from opentelemetry.metrics import Meter
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tunewheel_runtime.broker_watch import BrokerWatch
from tunewheel_runtime.leadership import Leadership
from tunewheel_runtime.metrics import gauge
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.tls import InvalidTls, trust_own

log = structlog.get_logger(__name__)
PATIENCE_SECONDS = 5.0
READY = "/health/ready"
LIVE = "/health/live"


class Health:
    """The state of one process: whether it is ready, whether it is active or a standby, and its warnings."""

    def __init__(
        self, service: str, broker: BrokerWatch, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._service = service
        self._broker = broker
        self.started = False
        """Whether the start has finished, and nothing has failed since."""
        self.is_reading = False
        """Whether the process is starting and still reads the topics that it answers requests from."""
        self.needs_broker = True
        """False: the process works, and stays ready, while the broker is unavailable."""
        self.leadership: Leadership | None = None
        """Set for a service of which only one process at a time is active."""
        self._warnings: dict[str, str] = {}
        """Texts by name; see ``warn``."""
        self._until: dict[str, float] = {}
        """When warnings end by themselves."""

    @property
    def stands_by(self) -> bool:
        """Whether this process is a standby that waits for the active process to end."""
        return self.leadership is not None and self.leadership.stands_by

    @property
    def ready(self) -> bool:
        return (self.started or self.stands_by) and not (self.needs_broker and self._broker.lost)

    def warn(self, name: str, text: str | None, *, seconds: float | None = None) -> None:
        """Report a problem that does not stop the service. It is logged as an error, and shown at
        ``/health/ready`` until ``warn`` is called with the same ``name`` and None, or until it was not called
        with a text for so many ``seconds``. Nothing is logged while the text stays the same."""
        self._until.pop(name, None)
        if text is not None and seconds is not None:
            self._until[name] = self._clock() + seconds
        if text is not None and self._warnings.get(name) != text:
            self._warnings[name] = text
            log.error("warning", name=name, text=text)
        elif text is None and self._warnings.pop(name, None) is not None:
            log.info("warning_over", name=name)

    @property
    def warnings(self) -> list[str]:
        """The texts of the warnings that stand."""
        for name in [name for name, until in self._until.items() if until <= self._clock()]:
            self.warn(name, None)
        return [*self._warnings.values()]

    def state(self) -> dict[str, object]:
        """Return the content of ``/health/ready``."""
        state: dict[str, object] = {"service": self._service, "ready": self.ready}
        if self.leadership is not None:
            state["role"] = "active" if self.leadership.held else "standby"
        if silent := self._broker.silent_seconds:
            state["broker_silent_seconds"] = round(silent, 1)
        if warnings := self.warnings:
            state["warnings"] = warnings
        return state

    def measure(self, meter: Meter) -> None:
        """Report the state as metrics."""
        broker, began = self._broker, time.time()
        gauge(meter, "tunewheel.process.start_seconds", "Unix time at which the process began", lambda: began)
        gauge(meter, "tunewheel.ready", "1 while /health/ready answers 200", lambda: int(self.ready))
        gauge(meter, "tunewheel.warnings", "Warnings at /health/ready", lambda: len(self.warnings))
        gauge(
            meter,
            "tunewheel.broker.silent_seconds",
            "For how long the broker has not answered, at first since the start; 0 while it does",
            lambda: broker.silent_seconds,
        )
        gauge(
            meter,
            "tunewheel.consumer.lag",
            "Records that wait in the partitions of this process",
            lambda: broker.lag,
            ("group", "topic", "partition"),
        )
        gauge(
            meter,
            "tunewheel.leadership.active",
            "1 in the active process of a service of which one is active at a time, 0 in those that stand by",
            lambda: {} if self.leadership is None else {self.leadership.group[0]: int(self.leadership.held)},
            ("group",),
        )


def health_routes(state: Callable[[], dict[str, object]]) -> list[Route]:
    """Return the routes ``/health/live`` and ``/health/ready``.

    ``/health/live`` answers 200 whenever the process can answer. ``/health/ready`` answers ``state()``, which
    holds at least ``{"ready": bool}``; where that is false the status is 503.
    """

    async def live(_: Request) -> JSONResponse:
        return JSONResponse({"status": "live"})

    async def ready(_: Request) -> JSONResponse:
        found = state()
        return JSONResponse(found, status_code=200 if found["ready"] else 503)

    return [Route(LIVE, live), Route(READY, ready)]


def ask(settings: HttpSettings, path: str = READY) -> str | None:
    """Probe the service of ``settings`` on this machine. Return the problem; None: there is none."""
    port = settings.health_port
    host = _reachable(settings.health_host or settings.http_host)
    try:
        if settings.tls_certfile is None:
            connection = HTTPConnection(host, port, timeout=PATIENCE_SECONDS)
        else:
            context = trust_own(settings.tls_certfile)
            connection = HTTPSConnection(host, port, timeout=PATIENCE_SECONDS, context=context)
        connection.request("GET", path)
        answer = connection.getresponse()
        text = answer.read().decode("utf-8", "replace")
        return None if answer.status == 200 else f"status {answer.status}: {text[:1000]}"
    except (OSError, HTTPException, InvalidTls) as error:
        return f"{host}:{port}: {error}"


def _reachable(host: str) -> str:
    """Return the address at which this machine reaches a socket that listens on ``host``. If ``host`` stands
    for all addresses, that is loopback."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def main() -> int:
    """Probe the service of this environment's settings; images run this. Return 0, or print the problem and
    return 1."""
    wrong = ask(HttpSettings())
    if wrong is not None:
        print(wrong, file=sys.stderr)
    return int(wrong is not None)


if __name__ == "__main__":
    sys.exit(main())
