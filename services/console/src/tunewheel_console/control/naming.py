"""Names commands: a command that is sent again under its name is the same command."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import Header
from tunewheel_contracts.api.commands import Order
from tunewheel_runtime.refusals import Refused

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=256,
        description="Names the command, as `request` does.",
    ),
]


def named(order: Order, key: str | None) -> str | None:
    """Return the caller's name of a command, from its body or from ``Idempotency-Key``; None: it has none.

    Raises:
        Refused: both name it, and differently.
    """
    if order.request is not None and key not in (None, order.request):
        reason = "is not the Idempotency-Key; send one of the two"
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "request", reason)
    return order.request or key
