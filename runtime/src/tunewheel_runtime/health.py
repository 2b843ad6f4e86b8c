"""Liveness and readiness over HTTP."""

from __future__ import annotations

from collections.abc import Callable

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def health_routes(state: Callable[[], dict[str, object]]) -> list[Route]:
    """Return ``/health/live`` (the process answers) and ``/health/ready`` (it can do its work).

    ``state()`` returns at least ``{"ready": bool}``; a service that is not ready answers 503.
    """

    async def live(_: Request) -> JSONResponse:
        return JSONResponse({"status": "live"})

    async def ready(_: Request) -> JSONResponse:
        found = state()
        return JSONResponse(found, status_code=200 if found["ready"] else 503)

    return [Route("/health/live", live), Route("/health/ready", ready)]
