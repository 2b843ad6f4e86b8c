"""Authenticates browsers: login and logout, the session's cookie, and CSRF tokens.

``identity.guard`` comes after this middleware. It authorises every request by its caller.
"""

from __future__ import annotations

from http import HTTPStatus
from ipaddress import ip_network
from urllib.parse import parse_qs

import structlog
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send
from tunewheel_runtime.admission import SAFE_METHODS
from tunewheel_runtime.identity.access import Access, Credential, bearer_secret
from tunewheel_runtime.identity.guard import caller_of, set_caller
from tunewheel_runtime.identity.roles import IssuerAway, NotAuthenticated, Role
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from tunewheel_console.logins import FAILURE_SECONDS, Attempts, LoginLinks, login_page, root_of
from tunewheel_console.sessions import Session, Sessions, SessionTooLarge, set_session

log = structlog.get_logger(__name__)

FORM_BYTES = 32_768
"""The most bytes of a login form. A token takes some kilobytes."""


def add_authentication(
    web: Starlette, access: Access, sessions: Sessions, links: LoginLinks, *, proxies: str = ""
) -> None:
    """Put ``Authentication`` around ``web``. ``proxies``: addresses and networks, separated by commas, whose
    ``X-Forwarded-For`` names the browser's address. Others may write there what they like."""
    web.add_middleware(Authentication, access=access, sessions=sessions, links=links)
    if proxies:
        web.add_middleware(ProxyHeadersMiddleware, trusted_hosts=_also_mapped(proxies))  # type: ignore[arg-type]


def _also_mapped(proxies: str) -> list[str]:
    """Return the networks, those of IPv4 also as a socket of both kinds (``::``) tells them."""
    named = [ip_network(one.strip()) for one in proxies.split(",") if one.strip()]
    mapped = [f"::ffff:{one.network_address}/{96 + one.prefixlen}" for one in named if one.version == 4]
    return [*map(str, named), *mapped]


class Authentication:
    """ASGI middleware around the whole console.

    It answers ``/login`` and ``/logout`` itself, never with status 2xx. A browser that asks for a page
    without a session gets the login form with status 401.
    """

    def __init__(self, app: ASGIApp, access: Access, sessions: Sessions, links: LoginLinks) -> None:
        self._app = app
        self._access = access
        self._sessions = sessions
        self._links = links
        self._attempts = Attempts()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._access.is_open:
            await self._app(scope, receive, send)
            return
        connection = HTTPConnection(scope)
        bearer = bool(bearer_secret(connection.headers.get("authorization")))
        session = None if bearer else await self._enter(connection)
        answer = await self._answer(Request(scope, receive), session, bearer=bearer)
        await (self._app if answer is None else answer)(scope, receive, send)

    async def _enter(self, connection: HTTPConnection) -> Session | None:
        """Read the cookie's session and pass it to the guard."""
        session = self._sessions.read(connection)
        if session is None:
            return None
        try:
            caller = await self._sessions.caller(session)
        except NotAuthenticated:
            return None
        set_caller(connection.scope, caller)
        set_session(connection.scope, session)
        return session

    async def _answer(self, request: Request, session: Session | None, *, bearer: bool) -> Response | None:
        """Return the answer to a request. None: the guard handles the request."""
        path = request.url.path
        if path == "/login" and request.method in ("GET", "POST"):
            return await self._login(request, session)
        if path == "/logout" and request.method == "POST":
            return await self._logout(request, session)
        if session is None:
            asks = not bearer and _asks_for_page(request)
            return _form(request, HTTPStatus.UNAUTHORIZED) if asks else None
        if _asks_for_page(request) and not caller_of(request).may(Role.VIEWER):
            return _form(request, HTTPStatus.FORBIDDEN, _may_read_nothing(session.credential))
        if request.method in SAFE_METHODS:
            return None
        return None if session.repeats(request.headers.get("x-csrf-token", "")) else _not_repeated()

    async def _login(self, request: Request, session: Session | None) -> Response:
        form = _fields(request.url.query)
        if request.method == "POST":
            form = await _posted(request)
        elif "link" not in form:
            return _to_root(request) if session else _form(request, HTTPStatus.UNAUTHORIZED)
        elif request.headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            # A person must confirm, because another website may hold the link. A form of this page also makes
            # the browser send the cookie.
            return _form(request, HTTPStatus.UNAUTHORIZED, "This link logs you in.", link=form["link"])
        address = request.client.host if request.client else ""
        if not self._attempts.begin(address):
            log.warning("login_refused", address=address, reason="too many attempts")
            advice = f"Too many attempts; wait {FAILURE_SECONDS:.0f} seconds."
            return _form(request, HTTPStatus.TOO_MANY_REQUESTS, advice)
        try:
            credential = await self._prove(form)
            caller = await self._access.caller_with(credential)
        except NotAuthenticated as error:
            log.warning("login_refused", address=address, reason=str(error))
            away = isinstance(error, IssuerAway)
            status = HTTPStatus.SERVICE_UNAVAILABLE if away else HTTPStatus.UNAUTHORIZED
            return _form(request, status, f"Not logged in: {error}.")
        self._attempts.succeed(address)
        if not caller.may(Role.VIEWER):
            return _form(request, HTTPStatus.FORBIDDEN, _may_read_nothing(credential))
        return self._begin(request, credential, session)

    async def _prove(self, form: dict[str, str]) -> Credential:
        if "link" in form:
            return self._links.use(form["link"])
        if not form.get("key"):
            raise NotAuthenticated("no API key or token came; paste one into the form")
        return await self._access.credential(f"Bearer {form['key']}")

    def _begin(self, request: Request, credential: Credential, before: Session | None) -> Response:
        """Begin a new session. The browser's previous session ends, and none of its values are reused."""
        response = _to_root(request)
        try:
            self._sessions.write(self._sessions.begin(credential), request, response)
        except SessionTooLarge as error:
            return _form(request, HTTPStatus.FORBIDDEN, f"Not logged in: {error}.")
        if before is not None:
            self._sessions.end(before)
        log.info("logged_in", principal=credential.principal.name)
        return response

    async def _logout(self, request: Request, session: Session | None) -> Response:
        if session is not None:
            if not session.repeats((await _posted(request)).get("csrf", "")):
                return _not_repeated()
            self._sessions.end(session)
            log.info("logged_out", principal=session.credential.principal.name)
        response = _to_root(request)
        self._sessions.erase(request, response)
        return response


def _asks_for_page(request: Request) -> bool:
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def _form(request: Request, status: HTTPStatus, message: str = "", *, link: str | None = None) -> Response:
    return login_page(status, root=root_of(request), message=message, link=link)


def _to_root(request: Request) -> RedirectResponse:
    headers = {"cache-control": "no-store", "referrer-policy": "no-referrer"}
    return RedirectResponse(root_of(request), HTTPStatus.SEE_OTHER, headers)


def _may_read_nothing(credential: Credential) -> str:
    name = credential.principal.name
    return f"{name} may read no project: ask for the role viewer, or log in with another key."


def _not_repeated() -> Response:
    message = (
        "X-CSRF-Token is missing or is not this session's; repeat what the page was given, or send a key"
    )
    body = {"message": message, "type": "permission_error", "param": "X-CSRF-Token", "code": "csrf"}
    return JSONResponse({"error": body}, HTTPStatus.FORBIDDEN)


async def _posted(request: Request) -> dict[str, str]:
    """Return the fields of a form; no fields if the body is larger than ``FORM_BYTES``."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > FORM_BYTES:
            return {}
    return _fields(body.decode("utf-8", "replace"))


def _fields(form: str) -> dict[str, str]:
    return {name: values[-1].strip() for name, values in parse_qs(form).items()}
