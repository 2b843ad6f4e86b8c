"""Gets a one-time login link from the console. It logs in as the key that asked for it."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus

from tunewheel_contracts.errors import TunewheelError

from tunewheel_cli.endpoint import Endpoint, detail_of

PATIENCE_SECONDS = 10.0


class NoLogin(TunewheelError):
    """The console makes no link. The message is the console's."""


@dataclass(frozen=True, slots=True)
class LoginLink:
    """A login link. ``url`` is a secret until it is opened; ``expires_at`` is in ISO 8601."""

    url: str
    expires_at: str


async def login_link(console: Endpoint) -> LoginLink:
    """Ask the console for a link.

    Raises:
        TransientError: the console does not answer.
        NotAllowed: the console does not know the key.
        NoLogin: the console makes no link.
    """
    status, text = await console.post(
        "/v1/login-links", {}, patience=PATIENCE_SECONDS, option="--console-url"
    )
    if status == HTTPStatus.CREATED:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            body = json.loads(text)
            return LoginLink(console.url + body["path"], body["expires_at"])
    raise NoLogin(f"console: made no login link: {detail_of(status, text)}")


async def tell_login(console: Endpoint) -> str:
    """Return the link for a person, or the reason why there is none."""
    try:
        link = await login_link(console)
    except TunewheelError as error:
        return f"no link: {error}"
    until = datetime.fromisoformat(link.expires_at).astimezone()
    return f"{link.url} (for one login, until {until:%H:%M:%S})"
