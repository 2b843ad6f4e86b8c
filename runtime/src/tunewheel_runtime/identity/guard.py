"""Checks the caller's role on every route. An app with a route that names no role is not served."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from starlette.datastructures import QueryParams
from starlette.requests import HTTPConnection
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from tunewheel_contracts.api.errors import ErrorResponse
from tunewheel_contracts.errors import TunewheelError

from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.roles import (
    Caller,
    InvalidToken,
    IssuerAway,
    NotAuthenticated,
    NotAuthorised,
    Role,
)
from tunewheel_runtime.identity.signing_keys import PAUSE_SECONDS

log = structlog.get_logger(__name__)
T = TypeVar("T")

_CALLER = "tunewheel.caller"
_NEED = "__tunewheel_need__"


class UnguardedRoute(TunewheelError):
    """A route names no role; the message names the route."""


@dataclass(frozen=True, slots=True)
class Need:
    """The requirement of a route: one of ``roles``, in the project that the path or query parameter
    ``project`` names. Without roles the route answers anybody, and nobody is asked who calls.

    If a request has no such parameter, the role in any project is enough for the guard. The route must then
    call ``caller_of(...).require(...)`` once it knows the project. If that raises, the guard answers 403.

    ``everywhere``: the role is needed in all projects, because the answer is about all of them.
    """

    roles: tuple[Role, ...]
    project: str = "project"
    everywhere: bool = False


def needs(*roles: Role, project: str = "project", everywhere: bool = False) -> Callable[[T], T]:
    """Mark an endpoint with its roles, of which a caller needs one; see ``Need``."""
    if not roles:
        raise UnguardedRoute("a route needs a role; mark one that answers anybody with asks_nobody")

    def mark(endpoint: T) -> T:
        setattr(endpoint, _NEED, Need(roles, project, everywhere))
        return endpoint

    return mark


def asks_nobody(endpoint: T) -> T:
    """Mark an endpoint that answers anybody, without a key or token."""
    setattr(endpoint, _NEED, Need(()))
    return endpoint


def guard_descriptions(routes: Sequence[BaseRoute]) -> None:
    """Mark the routes that FastAPI creates for an API's description as readable by callers with any role."""
    for route in routes:
        if type(route) is Route and route.endpoint.__module__ == "fastapi.applications":
            needs(*Role)(route.endpoint)


def caller_of(connection: HTTPConnection | Scope) -> Caller:
    """Return the caller of a request that has passed the guard."""
    scope = connection.scope if isinstance(connection, HTTPConnection) else connection
    return scope[_CALLER]


def has_caller(scope: Scope) -> bool:
    """Return whether a request has passed the guard."""
    return _CALLER in scope


def set_caller(scope: Scope, caller: Caller) -> None:
    """Set the caller of a request, for logins by other means than ``Authorization``."""
    scope[_CALLER] = caller


def needs_of(routes: Sequence[BaseRoute], prefix: str = "") -> Iterator[tuple[str, Any, Need | None]]:
    """Yield path, route and need of every route. For a ``Mount`` whose app has a need, only the mount is
    yielded."""
    for route in routes:
        path = prefix + getattr(route, "path", "")
        target = route.app if isinstance(route, Mount) else getattr(route, "endpoint", None)
        need: Need | None = getattr(target, _NEED, None)
        if isinstance(route, Mount) and need is None and route.routes:
            yield from needs_of(route.routes, path)
        else:
            yield path, route, need


def guard(routes: Sequence[BaseRoute], access: Access) -> None:
    """Put a guard before every route. Raises UnguardedRoute: a route names no role."""
    for path, route, need in list(needs_of(routes)):
        if need is None or not isinstance(route, Route | WebSocketRoute | Mount):
            raise UnguardedRoute(f"the route {path} names no role; mark its endpoint with needs(Role…)")
        route.app = Guard(route.app, access, need)


class Guard:
    """ASGI wrapper of one route. It answers 401 for an unknown caller, 403 for a missing role, and 503 while
    the issuer of tokens is unavailable."""

    def __init__(self, app: ASGIApp, access: Access, need: Need) -> None:
        self._app = app
        self._access = access
        self._need = need
        setattr(self, _NEED, need)  # ``needs_of`` reads it where a mount is guarded.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._need.roles:
            await self._app(scope, receive, send)
            return
        try:
            if _CALLER not in scope:
                scope[_CALLER] = await self._access.identify(_authorization(scope))
            self._require(caller_of(scope), self._project(scope))
            if scope.get("endpoint") is self:  # A mounted app may expect itself as the endpoint.
                scope["endpoint"] = self._app
            await self._app(scope, receive, send)
        except (NotAuthenticated, NotAuthorised) as error:
            log.warning("caller_refused", path=scope["path"][:200], reason=str(error))
            await _refuse(scope, send, error)

    def _require(self, caller: Caller, project: str | None) -> None:
        roles = self._need.roles
        if self._need.everywhere:
            if all(caller.projects_of(role) is not None for role in roles):
                raise NotAuthorised(
                    f"{caller.name or 'nobody'} lacks the role {roles[0].value} in all projects; ask for it, "
                    "or use another key"
                )
        elif not any(caller.may(role, project) for role in roles):
            caller.require(roles[0], project)

    def _project(self, scope: Scope) -> str | None:
        name = self._need.project
        if project := scope.get("path_params", {}).get(name):
            return project
        # Saves the parsing of an empty query on the gateway's hot path.
        return QueryParams(scope["query_string"]).get(name) if scope["query_string"] else None


def _authorization(scope: Scope) -> str | None:
    found = (value for name, value in scope["headers"] if name == b"authorization")
    value = next(found, None)
    return None if value is None else value.decode("latin-1")


def refused(description: str) -> dict[str, Any]:
    """Return an answer in the shape of a refusal, for the OpenAPI document of a FastAPI app.

    The shape is named and not given as a ``model``: for every model of every route FastAPI makes a validator
    that no request needs. One answer of ``RESPONSES`` has the model, which writes the shape down.
    """
    shape = {"$ref": f"#/components/schemas/{ErrorResponse.__name__}"}
    return {"description": description, "content": {"application/json": {"schema": shape}}}


RESPONSES: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorResponse, "description": "No key or token, or an unknown one"},
    403: refused("The caller lacks the role in the project"),
    503: refused("The issuer of tokens is unavailable; send a key, or try later"),
}
"""The guard's answers, for the OpenAPI document of a FastAPI app."""


def refusal(error: NotAuthenticated | NotAuthorised) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return status, headers and body. The body has OpenAI's error shape."""
    if isinstance(error, IssuerAway):
        status, headers = 503, {"retry-after": f"{PAUSE_SECONDS:.0f}"}
        kind, code = "server_error", "issuer_away"
    elif isinstance(error, InvalidToken):
        status, headers = 401, {"www-authenticate": 'Bearer error="invalid_token"'}  # RFC 6750 §3.1
        kind, code = "authentication_error", "invalid_token"
    elif isinstance(error, NotAuthenticated):
        status, headers = 401, {"www-authenticate": "Bearer"}
        kind, code = "authentication_error", "invalid_api_key"
    else:
        status, headers = 403, dict[str, str]()
        kind, code = "permission_error", "role_missing"
    body = {"error": {"message": str(error), "type": kind, "param": None, "code": code}}
    return status, headers, body


async def _refuse(scope: Scope, send: Send, error: NotAuthenticated | NotAuthorised) -> None:
    status, headers, body = refusal(error)
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": body["error"]["code"]})
        return
    sent = {"content-type": "application/json", **headers}
    raw = [(name.encode(), value.encode()) for name, value in sent.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})
