"""The addresses of a wheel's services, and the key that is sent to them."""

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

from tunewheel_local.connection import InvalidOption, NoWheel
from tunewheel_local.http import open_session
from tunewheel_local.places import Var
from tunewheel_local.roster import ROSTER
from tunewheel_local.roster import url as loopback
from tunewheel_local.run_state import living
from tunewheel_local.wheel_secrets import local_key

KEY = "TUNEWHEEL_API_KEY"
OPTIONS = {
    "console": "--console-url",
    "gateway": "--gateway",
    "ingest": "--ingest-url",
    "registry": "--registry",
}
"""By service, the option that names its address."""


class NotAllowed(TunewheelError):
    """A service does not know the key (401), or the key lacks a role (403)."""


@dataclass(frozen=True, slots=True)
class Response:
    """The answer of a service. The names of ``headers`` are found in any case."""

    service: str
    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def reason(self) -> str:
        """The message of an error in OpenAI's shape, or in FastAPI's, which lists faults of a request's body;
        for another shape, the beginning of the answer."""
        try:
            body = json.loads(self.text)
            if "error" in body:
                return str(body["error"]["message"])
            if isinstance(body["detail"], str):
                return body["detail"]
            faults = [(".".join(map(str, fault["loc"][1:])), fault["msg"]) for fault in body["detail"]]
            return "; ".join(f"{field}: {message}" for field, message in faults)
        except (ValueError, KeyError, TypeError):
            return f"status {self.status}: {self.text[:300]}"

    def failure(self, refused: type[TunewheelError]) -> TunewheelError:
        """Return the error to raise: ``refused``, or TransientError if the service is busy or not ready."""
        busy = self.status in (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
        return (TransientError if busy else refused)(f"{self.service}: {self.reason}")


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
        key = key_from_environment()
        if key is None and running and address == own and running.keys_file == str(var.keys_file):
            key = local_key(var)
        return cls(service, address, key, None if url or own else var)

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.key is None else {"Authorization": f"Bearer {self.key.get_secret_value()}"}

    def require_named(self) -> None:
        """Raise ``NoWheel`` if nobody named an address."""
        if self.guessed_on is not None:
            raise NoWheel(self.guessed_on, f"the {self.service}", OPTIONS[self.service])

    async def request(self, method: str, path: str, *, patience: float, **options: Any) -> Response:
        """Return the answer at the URL-quoted ``path``, which may take ``patience`` seconds. ``options`` are
        aiohttp's, such as ``json`` and ``params``.

        Raises:
            NoWheel: nobody named the service's address.
            TransientError: the service does not answer.
            NotAllowed: the service refuses the key.
        """
        import aiohttp
        from yarl import URL

        self.require_named()
        timeout = aiohttp.ClientTimeout(total=patience)
        try:
            async with (
                open_session(timeout=timeout, headers=self.headers) as http,
                http.request(method, URL(f"{self.url}{path}", encoded=True), **options) as response,
            ):
                answer = Response(self.service, response.status, await response.text(), response.headers)
        except (TimeoutError, aiohttp.ClientError) as error:
            raise TransientError(
                f"{self.service}: nothing answers at {self.url} ({error}); start the wheel with "
                "`tunewheel up`, give the folder where it was started with --var, or name the "
                f"{self.service} with {OPTIONS[self.service]}"
            ) from error
        self.require_allowed(answer)
        return answer

    def require_allowed(self, answer: Response) -> None:
        """Raise ``NotAllowed`` for an answer of 401 or 403."""
        if answer.status not in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            return
        if self.key is None:
            raise NotAllowed(
                f"{self.service}: {self.url} asks who calls; set {KEY} to a key that it knows, or "
                "name the folder of the wheel that listens there with --var"
            )
        sent = f"the key in {KEY}" if key_from_environment() else "the wheel's own key"
        raise NotAllowed(f"{self.service}: {answer.reason} ({sent} was sent to {self.url})")


def key_from_environment(variable: str = KEY) -> SecretStr | None:
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
