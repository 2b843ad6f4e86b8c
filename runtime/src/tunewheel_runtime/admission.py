"""Refuses HTTP requests that another website made a user's browser send.

A browser can reach all that its user can reach, and it adds the user's cookies. Any website can make it send
forms, and scripts' requests that look like forms ("CORS-safelisted", Fetch §2.2.2). Three headers reveal such
requests. A website cannot forge them:

- ``Host``. A website whose name resolves to this machine (DNS rebinding) sends its own name.
- ``Origin``, or where it is missing ``Sec-Fetch-Site``. They name the website that the request comes from.
  Go's ``http.CrossOriginProtection`` uses the same two headers.
- ``Content-Type``. A form cannot send JSON, and a script of another website needs permission first (CORS
  preflight).

A page of an allowed website has no permission by that alone: its browser asks first which methods and headers
it may send (CORS preflight, Fetch §4.8), and keeps an answer from it that does not name its website. Such a
page calls with a key. A browser never adds the console's cookie to its requests.

The headers do not help if another website shows a page of this service in a frame and misleads the user to
click in it. So answers tell browsers not to show pages in frames (CSP ``frame-ancestors``).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import structlog
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunewheel_runtime.middleware import Middleware
from tunewheel_runtime.settings import DEFAULT_PORTS, HttpSettings

log = structlog.get_logger(__name__)

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing (RFC 9110 §9.2.1)."""
JSON_LINES = ("application/x-ndjson", "application/jsonl", "application/x-jsonlines")
YAML = ("application/yaml", "application/x-yaml")
"""RFC 9512, and the usual name before it. A form cannot send these either."""


def is_loopback(host: str) -> bool:
    """Return whether ``host``, an address or a name, can be reached from this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class _Refusal:
    status: int
    field: str
    reason: str

    def body(self) -> bytes:
        """Return the refusal as JSON in OpenAI's error shape."""
        message = f"{self.field} {self.reason}"
        kind = {"message": message, "type": "invalid_request_error", "param": self.field, "code": None}
        return json.dumps({"error": kind}).encode()


class Admission(Middleware):
    """ASGI middleware around a whole app, including health. For a websocket the handshake is checked.

    Status 421: ``Host`` names another service (RFC 9110 §15.5.20). 403: the request comes from another
    website. 415: the body is not JSON.
    """

    def __init__(self, app: ASGIApp, settings: HttpSettings, *, any_content: Sequence[str] = ()) -> None:
        """``any_content``: prefixes of paths that accept bodies of any content type."""
        super().__init__(app)
        self._hosts = frozenset(settings.allowed_hosts)
        self._origins = frozenset(settings.allowed_origins)
        self._any_host = not self._hosts and not is_loopback(settings.http_host)
        self._any_content = tuple(any_content)
        self._allowing = app
        if self._origins:
            # Without credentials, so any header may come: a key is sent by whoever holds it.
            self._allowing = CORSMiddleware(
                app, self._origins, allow_methods=["*"], allow_headers=["*"], expose_headers=["*"]
            )
        self._frames = " ".join(["frame-ancestors 'self'", *settings.allowed_origins]).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = self._judge(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            shown = scope["type"] == "http" and scope["method"] == "GET"
            await self._allowing(scope, receive, self._unframed(send) if shown else send)
            return
        log.warning("request_refused", path=scope["path"][:200], field=refusal.field, reason=refusal.reason)
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.field})
            return
        headers = [(b"content-type", b"application/json")]
        origin = dict(scope["headers"]).get(b"origin", b"")
        if origin.decode("latin-1") in self._origins:  # else its page could not read what is wrong
            headers += [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]
        await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "http.response.body", "body": refusal.body()})

    def _unframed(self, send: Send) -> Send:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                policy = (b"content-security-policy", self._frames)
                message = {**message, "headers": [*message.get("headers", ()), policy]}
            await send(message)

        return send_with_policy

    def _judge(self, scope: Scope) -> _Refusal | None:
        headers: dict[bytes, str] = {}
        for name, value in scope["headers"]:
            if name == b"host" and name in headers:
                return _Refusal(421, "Host", "is sent twice; send one")
            headers[name] = value.decode("latin-1")
        host = headers.get(b"host", "").lower()
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        return (
            self._judge_host(host)
            or self._judge_origin(headers, host, changes=changes)
            or (self._judge_content(headers, scope["path"]) if changes else None)
        )

    def _judge_host(self, host: str) -> _Refusal | None:
        name = _name_of(host)
        if self._any_host or name == "localhost" or name in self._hosts or _is_address(name):
            return None
        return _Refusal(
            421,
            "Host",
            f"is {host[:80]!r}, which is not this service; call it as localhost, or name it in "
            "TUNEWHEEL_HTTP_ALLOWED_HOSTS",
        )

    def _judge_origin(self, headers: dict[bytes, str], host: str, *, changes: bool) -> _Refusal | None:
        origin = headers.get(b"origin")
        if origin is None:
            site = headers.get(b"sec-fetch-site", "none")
            if not changes or site in ("none", "same-origin"):
                return None
            return _Refusal(403, "Sec-Fetch-Site", f"is {site[:20]!r}; send it from a page of this service")
        if _is_of(origin, host) or origin.lower() in self._origins:
            return None
        return _Refusal(
            403,
            "Origin",
            f"is {origin[:80]!r}, a different website from {host[:80]!r}; call from a page of this service, "
            "or name the origin in TUNEWHEEL_HTTP_ALLOWED_ORIGINS",
        )

    def _judge_content(self, headers: dict[bytes, str], path: str) -> _Refusal | None:
        has_body = headers.get(b"content-length", "0") != "0" or b"transfer-encoding" in headers
        if not has_body or path.startswith(self._any_content):
            return None
        sent = headers.get(b"content-type", "")
        kind = sent.split(";")[0].strip().lower()
        if kind == "application/json" or kind in (*JSON_LINES, *YAML) or _is_json(kind):
            return None
        complaint = f"is {sent[:80]!r}" if sent else "is missing"
        return _Refusal(415, "Content-Type", f"{complaint}; send application/json")


def _is_json(kind: str) -> bool:
    return kind.startswith("application/") and kind.endswith("+json")


def _name_of(authority: str) -> str:
    """Return the host without its port: ``::1`` for ``[::1]:80``."""
    if authority.startswith("["):
        return authority[1:].partition("]")[0]
    return authority.partition(":")[0].rstrip(".")


@functools.lru_cache(maxsize=256)
def _is_address(name: str) -> bool:
    """Return whether ``name`` is an IP address, which DNS cannot redirect."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_of(origin: str, host: str) -> bool:
    """Return whether ``origin`` names ``host``. Schemes are not compared, because a proxy may terminate
    TLS."""
    try:
        sent = urlsplit(origin.lower())
        ours = urlsplit(f"{sent.scheme}://{host}")
        default = DEFAULT_PORTS.get(sent.scheme)
        same_port = (sent.port or default) == (ours.port or default)
    except ValueError:
        return False
    return bool(sent.hostname) and sent.hostname == ours.hostname and same_port
