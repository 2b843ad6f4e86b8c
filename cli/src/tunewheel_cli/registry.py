"""Reads from the registry."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from tunewheel_contracts.errors import TransientError, TunewheelError

from tunewheel_cli.endpoint import Endpoint, detail_of

PATIENCE_SECONDS = 60.0
WAITS_SECONDS = (0.1, 0.3, 0.6, 1.0)
"""Seconds to wait before each retry after status 503, which a registry gives until it has read the log."""


class RegistryRefused(TunewheelError):
    """The registry answered with an error. The message holds its reason."""


class Unknown(RegistryRefused):
    """Nothing has this name (404)."""


async def read(registry: Endpoint, *path: str, **query: Any) -> str:
    """Return the text at ``/v1/<path…>``. The parts of the path are quoted here.

    Raises:
        Unknown, RegistryRefused, NotAllowed: the registry refuses.
        TransientError: the registry does not answer, or cannot read the store.
    """
    where = "/v1/" + "/".join(quote(part, safe="") for part in path)
    asked = {name: str(value) for name, value in query.items()}
    waits = iter(WAITS_SECONDS)
    while True:  # every try uses a new connection
        status, text = await registry.get(where, asked, patience=PATIENCE_SECONDS, option="--registry")
        wait = next(waits, None) if status == HTTPStatus.SERVICE_UNAVAILABLE else None
        if wait is None:
            break
        await asyncio.sleep(wait)
    if status == HTTPStatus.OK:
        return text
    reason = detail_of(status, text)
    if status == HTTPStatus.NOT_FOUND:
        raise Unknown(f"registry: {reason}")
    if status == HTTPStatus.SERVICE_UNAVAILABLE:
        raise TransientError(f"registry: {reason}")
    raise RegistryRefused(f"registry: {reason}")
