"""Liveness and readiness over HTTP, and ``python -m tunewheel_runtime.health``, which asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from ipaddress import ip_address

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.tls import InvalidTls, trust_own

PATIENCE_SECONDS = 5.0
READY = "/health/ready"


def health_routes(state: Callable[[], dict[str, object]]) -> list[Route]:
    """Return ``/health/live`` (the process answers) and ``/health/ready`` (it can do its work).

    ``state()`` returns at least ``{"ready": bool}``; a service that is not ready answers 503.
    """

    async def live(_: Request) -> JSONResponse:
        return JSONResponse({"status": "live"})

    async def ready(_: Request) -> JSONResponse:
        found = state()
        return JSONResponse(found, status_code=200 if found["ready"] else 503)

    return [Route("/health/live", live), Route(READY, ready)]


def ask(settings: HttpSettings, path: str = READY) -> str | None:
    """Ask the service of ``settings`` on this machine how it is; return what is wrong, None if nothing is."""
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
    """Return where a socket that listens on ``host`` answers this machine: all addresses include loopback."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if not address.is_unspecified:
        return host
    return "127.0.0.1" if address.version == 4 else "::1"


def main() -> int:
    """Probe the service of this environment's settings, as images do; return 0, or 1 after the reason."""
    wrong = ask(HttpSettings())
    if wrong is not None:
        print(wrong, file=sys.stderr)
    return int(wrong is not None)


if __name__ == "__main__":
    sys.exit(main())
