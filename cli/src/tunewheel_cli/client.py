"""Requests to the registry of a wheel."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from tunewheel_contracts.errors import TunewheelError
from tunewheel_local.endpoint import Endpoint

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
