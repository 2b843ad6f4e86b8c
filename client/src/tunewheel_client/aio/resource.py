"""What all resources share."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict, TypeVar

from pydantic import BaseModel

from tunewheel_client.aio.transport import Transport

M = TypeVar("M", bound=BaseModel)


class Paging(TypedDict, total=False):
    """Which part of a list is meant: at most ``limit`` items (default 50), those after the cursor ``after``
    (``next`` of the page before), those that are not older than ``since``."""

    limit: int
    after: str | None
    since: datetime | None


class Resource:
    """Methods about one noun. Every method raises the errors of ``tunewheel_client.errors``:

    NotAllowed: the caller lacks the role. NotFound: there is nothing of this name. Conflict: the state does
    not permit it. Refused: a value is wrong. Away: the wheel does not answer.

    Wherever a method takes an id, a unique beginning of at least six characters or ``latest`` will do. Lists
    are pages, newest first; ``Paging`` says which part is meant. Commands answer before services obey them;
    ``client.commands.wait`` waits for that. The same command of the same caller with the same ``request`` is
    one command, however often it is sent.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def _read(self, model: type[M], /, *steps: str, **query: object) -> M:
        return await self._transport.read(model, "projects", *steps, **query)

    async def _send(self, model: type[M], method: str, *steps: str, **options: Any) -> M:
        return await self._transport.request(model, method, "projects", *steps, **options)

    async def _order(
        self, model: type[M], *steps: str, order: Mapping[str, Any], extra_seconds: float = 0.0
    ) -> M:
        """Send a command. Fields that are None are left out. Its ``request`` names it; without one it gets a
        new name, under which it may be sent again. ``extra_seconds``: how much longer the answer may take."""
        body = {name: value for name, value in order.items() if value is not None}
        named = True if "request" in body else None
        return await self._send(
            model, "POST", *steps, json=body, is_harmless=named, extra_seconds=extra_seconds
        )
