"""Requests to the console: login links, reviews of answers, and requests for labels."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import quote, urlencode

from tunewheel_contracts.errors import TunewheelError
from tunewheel_local.endpoint import Endpoint

LOGIN_SECONDS = 10.0
QUEUE_SECONDS = 30.0


class ConsoleRefused(TunewheelError):
    """The console refuses a request. The message is the console's and names the field."""


class NoLogin(TunewheelError):
    """The console makes no link. The message is the console's."""


@dataclass(frozen=True, slots=True)
class ConsoleQueue:
    """The ``reviews`` or the ``labels`` of one project at one console. ``reviewer``: the person's name, if
    identity is open.

    Each method returns the console's answer, which ``services/console/README.md`` describes.

    Each method raises:
        TransientError: the console, or a service that it needs, is away, and nothing was kept.
        NotAllowed: the console does not know the key, or the key lacks the role reviewer in the project.
        ConsoleRefused: the console refuses the request.
    """

    console: Endpoint
    kind: Literal["reviews", "labels"]
    project: str
    reviewer: str | None = None

    async def list(self) -> dict[str, Any]:
        return await self._request("GET")

    async def progress(self, name: str) -> dict[str, Any]:
        return await self._request("GET", name)

    async def show(self, name: str, number: int | None) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the progress, and the item ``number``; None: the first unanswered item."""
        progress = await self.progress(name)
        number = progress["next"] if number is None else number
        return progress, None if number is None else await self._request("GET", name, "items", str(number))

    async def answer(self, name: str, number: int, body: dict[str, Any]) -> dict[str, Any]:
        return await self._request("PUT", name, "items", str(number), "answer", json=body)

    async def submit(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._request("POST", name, "submit", json=body)

    async def _request(self, method: str, *parts: str, **options: Any) -> dict[str, Any]:
        path = "/".join(quote(part, safe="") for part in (self.project, self.kind, *parts))
        query = f"?{urlencode({'reviewer': self.reviewer})}" if self.reviewer else ""
        answer = await self.console.request(
            method, f"/v1/projects/{path}{query}", patience=QUEUE_SECONDS, **options
        )
        if answer.status in (HTTPStatus.OK, HTTPStatus.CREATED):
            with contextlib.suppress(ValueError):
                return json.loads(answer.text)
        raise answer.failure(ConsoleRefused)


def print_item(item: dict[str, Any], texts: dict[str, str]) -> None:
    """Print an item: the conversation, then ``texts`` under their headings."""
    print(f"item {item['number']} of {item['of']}")
    conversation = [(message["role"], message["content"]) for message in item["messages"]]
    for name, text in (*conversation, *texts.items()):
        print(f"--- {name}\n{printable(text)}")


def printable(text: str) -> str:
    """Return ``text`` without characters that control a terminal, because models and customers may write
    anything."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)


@dataclass(frozen=True, slots=True)
class LoginLink:
    """A one-time login link, which logs in as the key that asked for it. ``url`` is a secret until it is
    opened; ``expires_at`` is in ISO 8601."""

    url: str
    expires_at: str


async def login_link(console: Endpoint) -> LoginLink:
    """Ask the console for a link.

    Raises:
        TransientError: the console does not answer.
        NotAllowed: the console does not know the key.
        NoLogin: the console makes no link.
    """
    answer = await console.request("POST", "/v1/login-links", json={}, patience=LOGIN_SECONDS)
    if answer.status == HTTPStatus.CREATED:
        with contextlib.suppress(ValueError, KeyError, TypeError):
            body = json.loads(answer.text)
            return LoginLink(console.url + body["path"], body["expires_at"])
    raise NoLogin(f"console: made no login link: {answer.reason}")


async def login_text(console: Endpoint) -> str:
    """Return the link for a person, or the reason why there is none."""
    try:
        link = await login_link(console)
    except TunewheelError as error:
        return f"no link: {error}"
    until = datetime.fromisoformat(link.expires_at).astimezone()
    return f"{link.url} (for one login, until {until:%H:%M:%S})"
