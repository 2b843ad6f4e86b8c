"""Past the framework: one route of the gateway is worth it."""

from __future__ import annotations

import contextlib
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tunewheel_serve_gateway.connection import send_error
from tunewheel_serve_gateway.errors import UNFORESEEN, ApiError


class HotPath(Starlette):
    """Starlette, but requests to ``hot`` go straight to its app, and so does each piece of their answers:
    through Starlette's layers a piece takes two more calls, and a request a dozen."""

    def __init__(self, hot: Route, **options: Any) -> None:
        """``hot``: one of the routes, answered by plain ASGI, with a path without parameters."""
        super().__init__(**options)
        self._hot = hot
        self._methods = hot.methods or frozenset[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._hot.path or scope["method"] not in self._methods:
            await super().__call__(scope, receive, send)
            return
        try:
            await self._hot.app(scope, receive, send)  # by the guard, which stands there in place of the app
        except Exception:
            with contextlib.suppress(RuntimeError):  # an answer has begun, and cannot begin anew
                await send_error(send, ApiError(UNFORESEEN))
            raise
