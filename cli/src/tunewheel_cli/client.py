"""Requests to the services of a wheel, and in whose name they are made: the API key, and the principal of
events that are written to Kafka directly."""

from __future__ import annotations

import asyncio
import os
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError
from tunewheel_contracts.errors import TunewheelError, first_complaint
from tunewheel_contracts.principal import Principal
from tunewheel_local.connection import InvalidOption
from tunewheel_local.endpoint import KEY, Endpoint, key_from_environment
from tunewheel_local.places import Var
from tunewheel_local.run_state import living
from tunewheel_local.wheel_secrets import LOCAL

NAME = "TUNEWHEEL_PRINCIPAL"
UNNAMED = (
    "this was sent in nobody's name, and services that ask who sent it make a dead letter of it; set "
    f"{NAME} to the name of your key, or {KEY} to a key of the file in TUNEWHEEL_API_KEYS_FILE"
)
ANSWER_SECONDS = 300.0
READ_SECONDS = 60.0
WAITS_SECONDS = (0.1, 0.3, 0.6, 1.0)
"""Seconds to wait before each retry after status 503, which a registry gives until it has read the log."""


class RegistryRefused(TunewheelError):
    """The registry answered with an error. The message holds its reason."""


class Unknown(RegistryRefused):
    """The registry has nothing of this name (404)."""


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
