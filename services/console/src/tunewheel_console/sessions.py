"""Sessions of browsers. A signed cookie names the person; their roles are looked up at each request."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import time
from collections.abc import Callable

from itsdangerous import BadData, URLSafeSerializer
from pydantic import ValidationError
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.fields import Strict
from tunewheel_runtime.identity.access import Access, Credential, bearer_secret
from tunewheel_runtime.identity.roles import Caller, NotAuthenticated

COOKIE_BYTES = 3_800
"""The largest value of a cookie. Browsers may refuse cookies of more than 4,096 bytes, including name and
attributes (RFC 6265 §6.1)."""
_SESSION = "tunewheel.session"


class SessionTooLarge(TunewheelError):
    """The token names more groups than a cookie can hold."""


class Session(Strict):
    """One login of one browser."""

    session_id: str
    credential: Credential
    csrf: str
    """The CSRF token, which a request with changes must repeat. Another website cannot read it."""
    expires_at: float
    """The end of the session, in seconds since 1970."""

    def repeats(self, csrf: str) -> bool:
        return hmac.compare_digest(self.csrf.encode(), csrf.encode("utf-8", "surrogateescape"))


class Sessions:
    """Begins, reads and ends sessions. A session's values are all in its cookie. This process remembers only
    the sessions that ended early by logout."""

    def __init__(
        self, access: Access, *, secret: str | None, seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        """``secret`` None: a random one is made. Then sessions end with this process, and are valid only in
        it."""
        self._access = access
        self._seconds = seconds
        self._clock = clock
        self._ended: dict[str, float] = {}
        """By id of a session that was logged out, the time at which it would have ended."""
        self._seal = URLSafeSerializer(
            secret or secrets.token_urlsafe(32),
            salt=_SESSION,
            signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256},
        )

    def begin(self, credential: Credential) -> Session:
        ends = self._clock() + self._seconds
        if credential.expires_at is not None:
            ends = min(ends, credential.expires_at)
        return Session(
            session_id=secrets.token_urlsafe(16),
            credential=credential,
            csrf=secrets.token_urlsafe(32),
            expires_at=ends,
        )

    def end(self, session: Session) -> None:
        """End a session, so that copies of its cookie are invalid too."""
        now = self._clock()
        self._ended = {session_id: until for session_id, until in self._ended.items() if until > now}
        self._ended[session.session_id] = session.expires_at

    async def caller(self, session: Session) -> Caller:
        """Return the person of ``session`` with their current roles. Raises NotAuthenticated: the session has
        ended, or its key or token is not valid any more."""
        if session.expires_at <= self._clock() or session.session_id in self._ended:
            raise NotAuthenticated("this session has ended; log in again")
        return await self._access.caller_with(session.credential)

    async def identify(self, connection: HTTPConnection) -> Caller:
        """Return the caller of ``connection`` with its current roles, by ``Authorization`` or by cookie. An
        open page calls this again and again. Raises NotAuthenticated: neither identifies a caller."""
        authorization = connection.headers.get("authorization")
        session = self.read(connection)
        if self._access.is_open or session is None or bearer_secret(authorization):
            return await self._access.identify(authorization)
        return await self.caller(session)

    def read(self, connection: HTTPConnection) -> Session | None:
        """Return the session of a cookie with a valid signature, even if the session has ended."""
        names = _names(connection)
        for name in names[:1] if _is_under_tls(connection) else names:
            try:
                return Session.model_validate(self._seal.loads(connection.cookies[name]))
            except (KeyError, BadData, ValidationError):
                continue
        return None

    def write(self, session: Session, connection: HTTPConnection, response: Response) -> None:
        """Set the cookie of ``session`` in the browser that sent ``connection``. Raises SessionTooLarge."""
        sealed = self._seal.dumps(session.model_dump(mode="json"))
        assert isinstance(sealed, str)
        if len(sealed) > COOKIE_BYTES:
            groups = len(session.credential.principal.groups)
            raise SessionTooLarge(
                f"the token names {groups} groups, more than a cookie holds; "
                "let the issuer name those alone that have roles here"
            )
        host_only, plain = _names(connection)
        tls = _is_under_tls(connection)
        response.set_cookie(
            host_only if tls else plain,
            sealed,
            max_age=max(0, int(session.expires_at - self._clock())),
            path="/",
            secure=tls,
            httponly=True,
            samesite="strict",
        )

    def erase(self, connection: HTTPConnection, response: Response) -> None:
        """Delete the cookie in the browser that sent ``connection``."""
        for name in _names(connection):
            secure = name.startswith("__Host-")
            response.delete_cookie(name, path="/", secure=secure, httponly=True, samesite="strict")


def _names(connection: HTTPConnection) -> tuple[str, str]:
    """Return the cookie's names with and without TLS.

    Under TLS the first name takes precedence: browsers accept a ``__Host-`` cookie only from this host and
    only under TLS. Browsers keep cookies by host, not by port. The port is part of the name, so that two
    consoles can run on one machine.
    """
    port = connection.headers.get("host", "").rpartition(":")[2]
    name = f"tunewheel-{port}" if port.isdecimal() else "tunewheel"
    return f"__Host-{name}", name


def _is_under_tls(connection: HTTPConnection) -> bool:
    """Return whether the browser uses TLS, to this process or to a proxy before it.

    A client that forges these headers without TLS only prevents its own login.
    """
    if connection.url.scheme in ("https", "wss"):
        return True
    headers = connection.headers
    return headers.get("x-forwarded-proto", "").startswith("https") or headers.get("origin", "").startswith(
        "https:"
    )


def set_session(scope: Scope, session: Session) -> None:
    scope[_SESSION] = session


def session_of(scope: Scope) -> Session | None:
    """Return the session of a request; None: it has none, as with ``Authorization``."""
    return scope.get(_SESSION)
