"""The address of a service, and the key that the command line sends to it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self

from pydantic import SecretStr
from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_cli.connection import InvalidOption, NoWheel
from tunewheel_cli.http import open_session
from tunewheel_cli.places import Var
from tunewheel_cli.roster import ROSTER
from tunewheel_cli.roster import url as loopback
from tunewheel_cli.run_state import living
from tunewheel_cli.wheel_secrets import local_key

VARIABLE = "TUNEWHEEL_API_KEY"


class NotAllowed(TunewheelError):
    """A service does not know the key (401), or the key lacks a role (403)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service's address. ``key`` None: no key is sent."""

    service: str
    url: str
    key: SecretStr | None = None
    guessed_on: Var | None = None
    """The folder without a wheel for which ``url`` is only the usual port, where anybody may listen."""

    @classmethod
    def of(cls, service: str, var: Var, *, url: str | None = None) -> Self:
        """Return ``service`` at ``url``, else at its address in the wheel on ``var``. Where there is neither,
        the endpoint may be made but not asked.

        The key in ``TUNEWHEEL_API_KEY`` is sent to any address. The wheel's own key is sent only to the
        wheel's own addresses, which are in ``run.json`` while it runs.

        Raises:
            InvalidOption: ``TUNEWHEEL_API_KEY`` cannot be sent in a header.
            SecretsUnusable: the wheel's secrets cannot be read.
        """
        running = living(var.run_file)
        own = running.url_of(service) if running else None
        usual = next(loopback(member.port) for member in ROSTER if member.name == service)
        address = (url or own or usual).rstrip("/")
        key = given_key()
        if key is None and running and address == own and running.keys_file == str(var.keys_file):
            key = local_key(var)
        return cls(service, address, key, None if url or own else var)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key.get_secret_value()}"}

    def require_named(self, option: str) -> None:
        """Raise ``NoWheel`` if nobody named an address; ``option`` names one."""
        if self.guessed_on is not None:
            raise NoWheel(self.guessed_on, f"the {self.service}", option)

    async def post(self, path: str, body: Any, *, patience: float, option: str) -> tuple[int, str]:
        """Send ``body`` as JSON; return status and text of the answer, which may take ``patience`` seconds.

        Raises:
            NoWheel: nobody named the service's address; the message names ``option``, which does.
            TransientError: the service does not answer.
            NotAllowed: the service refuses the key.
        """
        return (await self._ask("POST", path, patience=patience, option=option, json=body))[:2]

    async def post_for_headers(
        self, path: str, body: Any, *, patience: float, option: str
    ) -> tuple[int, str, Mapping[str, str]]:
        """As ``post``, with the answer's headers; their names are found in any case."""
        return await self._ask("POST", path, patience=patience, option=option, json=body)

    async def put(self, path: str, body: Any, *, patience: float, option: str) -> tuple[int, str]:
        """Send ``body`` as JSON to the URL-quoted ``path``; see ``post``."""
        return (await self._ask("PUT", path, patience=patience, option=option, json=body))[:2]

    async def get(
        self, path: str, query: Mapping[str, str], *, patience: float, option: str
    ) -> tuple[int, str]:
        """Get the URL-quoted ``path``; see ``post``."""
        return (await self._ask("GET", path, patience=patience, option=option, params=query))[:2]

    async def _ask(
        self, method: str, path: str, *, patience: float, option: str, **what: Any
    ) -> tuple[int, str, Mapping[str, str]]:
        import aiohttp
        from yarl import URL

        self.require_named(option)
        timeout = aiohttp.ClientTimeout(total=patience)
        try:
            async with (
                open_session(timeout=timeout, headers=self.headers) as http,
                http.request(method, URL(f"{self.url}{path}", encoded=True), **what) as response,
            ):
                status, text, headers = response.status, await response.text(), response.headers
        except (TimeoutError, aiohttp.ClientError) as error:
            raise TransientError(
                f"{self.service}: nothing answers at {self.url} ({error}); start the wheel with "
                "`tunewheel up`, give the folder where it was started with --var, or name the "
                f"{self.service} with {option}"
            ) from error
        self.require_allowed(status, text)
        return status, text, headers

    def require_allowed(self, status: int, body: str) -> None:
        """Raise ``NotAllowed`` for an answer of 401 or 403."""
        if status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return
        if self.key is None:
            raise NotAllowed(
                f"{self.service}: {self.url} asks who calls; set {VARIABLE} to a key that it knows, or "
                "name the folder of the wheel that listens there with --var"
            )
        sent = f"the key in {VARIABLE}" if given_key() else "the wheel's own key"
        raise NotAllowed(f"{self.service}: {_reason(status, body)} ({sent} was sent to {self.url})")


def _reason(status: int, body: str) -> str:
    """Return the message of an error in OpenAI's shape; for another shape, the beginning of the body."""
    try:
        return str(json.loads(body)["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {status}: {body[:300]}"


def detail_of(status: int, body: str) -> str:
    """Return the message of an error in FastAPI's shape, which lists faults of a request's body; for another
    shape, the beginning of the answer."""
    try:
        detail = json.loads(body)["detail"]
        if isinstance(detail, str):
            return detail
        return "; ".join(f"{'.'.join(map(str, one['loc'][1:]))}: {one['msg']}" for one in detail)
    except (ValueError, KeyError, TypeError):
        return f"status {status}: {body[:300]}"


def given_key(variable: str = VARIABLE) -> SecretStr | None:
    """Return the key in ``variable``, else in the file of that name in ``TUNEWHEEL_SECRETS_DIR``, else None.

    Raises:
        InvalidOption: the key cannot be sent in a header.
    """
    value = os.environ.get(variable, "").strip()
    folder = os.environ.get("TUNEWHEEL_SECRETS_DIR")
    if not value and folder and (file := Path(folder) / variable).is_file():
        value = file.read_text("utf-8", errors="replace").strip()
    if not value:
        return None
    if not (value.isascii() and value.isprintable()):
        raise InvalidOption(f"{variable}: holds a character that no key has; copy the key again")
    return SecretStr(value)
