"""What all resources share."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel
from tunewheel_contracts.api.commands import Accepted

from tunewheel_client.aio.transport import Transport

M = TypeVar("M", bound=BaseModel)


class Resource:
    """Methods about one noun. Every method raises the errors of ``tunewheel_client.errors``:

    NotAllowed: the caller lacks the role. NotFound: there is nothing of this name. Conflict: the state does
    not permit it. Refused: a value is wrong. Away: the wheel does not answer.

    Wherever a method takes an id, a unique beginning of at least six characters or ``latest`` will do.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    async def _read(self, model: type[M], *steps: str, **query: object) -> M:
        return await self._transport.read(model, "projects", *steps, **query)

    async def _order(self, *steps: str, json: object = None, method: str = "POST") -> Accepted:
        return Accepted.model_validate(
            await self._transport.request(method, "projects", *steps, json=json or {})
        )
