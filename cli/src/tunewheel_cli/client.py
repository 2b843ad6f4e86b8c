"""Requests to the services of a wheel, and in whose name they are made: the API key, and the principal of
events that are written to Kafka directly."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from pydantic import SecretStr, ValidationError
from tunewheel_contracts.errors import TransientError, TunewheelError, first_complaint
from tunewheel_contracts.principal import Principal

from tunewheel_cli.connection import InvalidOption, NoWheel
from tunewheel_cli.http import open_session
from tunewheel_cli.places import Var
from tunewheel_cli.roster import ROSTER
from tunewheel_cli.roster import url as loopback
from tunewheel_cli.run_state import living
from tunewheel_cli.wheel_secrets import LOCAL, local_key

KEY = "TUNEWHEEL_API_KEY"
NAME = "TUNEWHEEL_PRINCIPAL"
UNNAMED = (
    "this was sent in nobody's name, and services that ask who sent it make a dead letter of it; set "
    f"{NAME} to the name of your key, or {KEY} to a key of the file in TUNEWHEEL_API_KEYS_FILE"
)
OPTIONS = {
    "console": "--console-url",
    "gateway": "--gateway",
    "ingest": "--ingest-url",
    "registry": "--registry",
}
"""By service, the option that names its address."""
ANSWER_SECONDS = 300.0
READ_SECONDS = 60.0
WAITS_SECONDS = (0.1, 0.3, 0.6, 1.0)
"""Seconds to wait before each retry after status 503, which a registry gives until it has read the log."""


class NotAllowed(TunewheelError):
    """A service does not know the key (401), or the key lacks a role (403)."""


class AnswerRefused(TunewheelError):
    """The gateway answered with an error."""


class RegistryRefused(TunewheelError):
    """The registry answered with an error. The message holds its reason."""


class Unknown(RegistryRefused):
    """The registry has nothing of this name (404)."""


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


@dataclass(frozen=True, slots=True)
class Answer:
    text: str
    model: str
    """The model that answered."""
    completion_id: str
    sources: tuple[Mapping[str, str], ...]
    """``document``, ``heading`` and ``version`` of each passage in the prompt, the best first."""
    seconds: float


async def ask_gateway(
    gateway: Endpoint, question: str, *, project: str, model: str | None = None, retrieval: str | None = None
) -> Answer:
    """Ask one question; ``model`` is a model id, or ``base`` for the project's bare base model, ``retrieval``
    is on or off, else what the spec says.

    Raises:
        TransientError: the gateway does not answer, or is busy.
        NotAllowed: the gateway does not know the key, or the key lacks the role.
        AnswerRefused: the gateway refuses; the message holds its reason.
    """
    asked = project if model is None else f"{project}/base" if model == "base" else model
    body: dict[str, Any] = {
        "model": asked,
        "messages": [{"role": "user", "content": question}],
        "temperature": 0.0,
    }
    if retrieval:
        body["retrieval"] = retrieval
    began = time.monotonic()
    answer = await gateway.request("POST", "/v1/chat/completions", json=body, patience=ANSWER_SECONDS)
    seconds = time.monotonic() - began
    sources = tuple(json.loads(answer.headers.get("x-tunewheel-sources", "[]")))
    if answer.status == HTTPStatus.OK:
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
            completion = json.loads(answer.text)
            text = completion["choices"][0]["message"]["content"]
            return Answer(text, completion["model"], completion["id"], sources, seconds)
    raise answer.failure(AnswerRefused)


async def read_registry(registry: Endpoint, *path: str, **query: Any) -> str:
    """Return the text at ``/v1/<path…>``. The parts of the path are quoted here.

    Raises:
        Unknown, RegistryRefused, NotAllowed: the registry refuses.
        TransientError: the registry does not answer, or cannot read the store.
    """
    where = "/v1/" + "/".join(quote(part, safe="") for part in path)
    params = {name: str(value) for name, value in query.items()}
    waits = iter(WAITS_SECONDS)
    while True:  # every try uses a new connection
        answer = await registry.request("GET", where, params=params, patience=READ_SECONDS)
        if answer.status == HTTPStatus.OK:
            return answer.text
        wait = next(waits, None) if answer.status == HTTPStatus.SERVICE_UNAVAILABLE else None
        if wait is None:
            raise answer.failure(Unknown if answer.status == HTTPStatus.NOT_FOUND else RegistryRefused)
        await asyncio.sleep(wait)


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


def principal_of(var: Var, bootstrap_servers: str) -> Principal | None:
    """Return the principal of events: ``TUNEWHEEL_PRINCIPAL``, else the name of the key in
    ``TUNEWHEEL_API_KEY``. On the Kafka of the wheel on ``var``, that wheel's own key is the last resort.

    Kafka does not check the name: any client with the right to write the topic can give any name.

    Raises:
        InvalidOption: a variable holds no valid name, or no known key.
        InvalidKeys: the file of keys cannot be read.
    """
    name = os.environ.get(NAME, "").strip()
    if name:
        try:
            return Principal(name=name)
        except ValidationError as error:
            raise InvalidOption(f"{NAME}: {first_complaint(error)[1]}") from error
    key = key_from_environment()
    if key is not None:
        from tunewheel_runtime.identity.keys import read_keys

        file = Path(os.environ.get("TUNEWHEEL_API_KEYS_FILE") or var.keys_file)
        return read_keys(file).find(key.get_secret_value()) if file.is_file() else None
    running = living(var.run_file)
    if running is None or running.bootstrap_servers != bootstrap_servers:
        return None
    return Principal(name=LOCAL) if running.keys_file == str(var.keys_file) else None


def warn_unnamed(var: Var) -> None:
    """Warn on standard error about events without a principal, unless this wheel's identity is open."""
    running = living(var.run_file)
    if running is None or running.identity != "open":
        print(f"tunewheel: {UNNAMED}", file=sys.stderr)
