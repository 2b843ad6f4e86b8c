"""What all ASGI middlewares around a service's app share."""

from __future__ import annotations

from starlette.routing import BaseRoute
from starlette.types import ASGIApp


class Middleware:
    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    @property
    def routes(self) -> list[BaseRoute]:
        """The routes of the wrapped app."""
        return getattr(self._app, "routes", [])
