"""The login form: one page without other files or scripts."""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from html import escape
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import HTMLResponse

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
