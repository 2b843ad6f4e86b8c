"""One-time login links, a limit on failed logins, and the login form: one page without other files."""

from __future__ import annotations

import hashlib
import secrets
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from html import escape
from http import HTTPStatus
from ipaddress import IPv6Address, IPv6Network, ip_address

from starlette.requests import Request
from starlette.responses import HTMLResponse
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Credential
from tunewheel_runtime.identity.roles import NotAuthenticated

LINK_SECONDS = 600.0
LINKS_EACH = 8
"""How many unused links one principal may have. One more replaces the oldest."""
FAILURES = 20
"""How many failed logins one address may have per ``FAILURE_SECONDS``."""
FAILURE_SECONDS = 60.0
ADDRESSES = 10_000
"""How many addresses with failed logins are remembered."""


@dataclass(frozen=True, slots=True)
class _Link:
    credential: Credential
    expires_at: float

    @property
    def principal(self) -> Principal:
        return self.credential.principal


class LoginLinks:
    """Links that log a browser in once, as the person who asked for the link. Only hashes are kept, in this
    process. A link ends with its first use, after ``LINK_SECONDS``, or with a restart."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._links: dict[str, _Link] = {}

    def make(self, credential: Credential) -> tuple[str, float]:
        """Return a new link's secret, and its end in seconds since 1970."""
        now = self._clock()
        self._links = {link_id: link for link_id, link in self._links.items() if link.expires_at > now}
        own = [link_id for link_id, link in self._links.items() if link.principal == credential.principal]
        for oldest in own[: max(0, len(own) + 1 - LINKS_EACH)]:
            del self._links[oldest]
        secret = secrets.token_urlsafe(32)
        self._links[_hash(secret)] = _Link(credential, now + LINK_SECONDS)
        return secret, now + LINK_SECONDS

    def use(self, secret: str) -> Credential:
        """Use up a link and return the credential of the person who asked for it. Raises NotAuthenticated:
        the link is unknown, was used, or is too old."""
        link = self._links.pop(_hash(secret), None)
        if link is None or link.expires_at <= self._clock():
            raise NotAuthenticated("this link was used or is too old; ask for another one")
        return link.credential


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


class Attempts:
    """Counts the recent failed logins of each address, and together those of the addresses that one client
    has (``_client``)."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, deque[float]] = {}

    def begin(self, address: str) -> bool:
        """Count an attempt as failed, until ``succeed`` is called. False: there were too many already, and
        this attempt is not counted. Counting first also limits attempts that are sent at the same time."""
        address, since = _client(address), self._clock() - FAILURE_SECONDS
        failures = self._failures.pop(address, deque[float]())
        while failures and failures[0] <= since:
            failures.popleft()
        allowed = len(failures) < FAILURES
        if allowed:
            failures.append(self._clock())
        self._failures[address] = failures
        if len(self._failures) > ADDRESSES:
            del self._failures[next(iter(self._failures))]
        return allowed

    def succeed(self, address: str) -> None:
        if failures := self._failures.get(_client(address)):
            failures.pop()


def _client(address: str) -> str:
    """Return the network of an IPv6 address: its client has all 2**64 addresses there (RFC 6177 §2), and
    would never wait. Of what is no address, the first characters: a proxy may hand on what its client
    wrote."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address[:64]
    if not isinstance(found, IPv6Address):
        return str(found)
    return str(found.ipv4_mapped or IPv6Network((int(found), 64), strict=False))


_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
main { max-width: 26rem; margin: 12vh auto; padding: 0 1rem }
input, button { font: inherit; width: 100%; box-sizing: border-box; padding: .5rem; margin: .25rem 0 }
.told { border-left: .25rem solid #c10015; padding-left: .75rem }
code { overflow-wrap: anywhere }
"""
_BY_KEY = """
<form method="post" action="{root}login">
<label for="key">API key or token</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Log in</button>
</form>
<p>Or run <code>tunewheel login</code> and open the link that it prints.</p>
"""
_BY_LINK = """
<form method="post" action="{root}login">
<input name="link" type="hidden" value="{link}">
<button autofocus>Log in by this link</button>
</form>
"""
_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Tunewheel: log in</title><style>{style}</style></head>
<body><main><h1>Tunewheel</h1>{message}{form}</main></body></html>
"""
_POLICY = (
    f"default-src 'none'; style-src 'sha256-{b64encode(sha256(_STYLE.encode()).digest()).decode()}'; "
    "form-action 'self'; base-uri 'none'"
)


def login_page(status: HTTPStatus, *, root: str, message: str = "", link: str | None = None) -> HTMLResponse:
    """Return the form as the body of a refusal.

    Args:
        root: the console's root, relative to the page's address.
        message: a text for the person.
        link: the secret of a one-time link, which the person confirms by a click.
    """
    form = _BY_KEY if link is None else _BY_LINK
    page = _PAGE.format(
        style=_STYLE,
        message=f'<p class="told" role="alert">{escape(message)}</p>' if message else "",
        form=form.format(root=root, link=escape(link or "")),
    )
    headers = {
        "cache-control": "no-store",
        "content-security-policy": _POLICY,
        "referrer-policy": "same-origin",
    }
    if status is HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return HTMLResponse(page, status, headers)


def root_of(request: Request) -> str:
    """Return the console's root relative to the address as the browser wrote it, because a proxy may serve it
    below a prefix. A ``%2F`` in an address begins no folder there."""
    path = request.scope.get("raw_path", b"").decode("latin-1").partition("?")[0] or request.url.path
    return "../" * (path.count("/") - 1) or "./"
