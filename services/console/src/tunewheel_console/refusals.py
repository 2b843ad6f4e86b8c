"""Refusals on pages and over HTTP, and the name under which a person answers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import HTTPException
from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent, TransientError, TunewheelError, first_complaint
from tunewheel_runtime.identity.roles import Caller, NotAuthorised


class Refused(TunewheelError):
    """A request that cannot be carried out. ``field`` is the field to correct; ``status`` is the HTTP
    status."""

    def __init__(self, status: HTTPStatus, field: str, reason: str) -> None:
        self.status = status
        self.field = field
        super().__init__(f"{field}: {reason}")


NOT_KEPT = (Refused, TransientError, InvalidEvent, NotAuthorised, ValidationError)
"""The errors after which a person's input on a page is not kept."""


def reason_of(error: Exception) -> str:
    """Return the text of an error of ``NOT_KEPT``."""
    if isinstance(error, ValidationError):
        field, reason = first_complaint(error)
        return f"{field} {reason}"
    return str(error)


@asynccontextmanager
async def told_over_http() -> AsyncGenerator[None]:
    """Turn errors into HTTP answers with the reason. 503: the broker or the store is away. 413: the event is
    too long. 422: a value is invalid."""
    try:
        yield
    except Refused as error:
        raise HTTPException(error.status, str(error)) from error
    except TransientError as error:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from error
    except InvalidEvent as error:
        raise HTTPException(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, str(error)) from error
    except ValidationError as error:
        field, reason = first_complaint(error)
        raise HTTPException(HTTPStatus.UNPROCESSABLE_ENTITY, f"{field}: {reason}") from error


def reviewer_of(caller: Caller, name: str | None) -> str:
    """Return the reviewer's name: the caller's unique name, or ``name`` if identity is open.

    Raises:
        Refused: no name is given, or ``name`` is not the caller's.
    """
    principal = caller.principal
    if principal is None:
        if not name:
            raise Refused(
                HTTPStatus.UNPROCESSABLE_ENTITY,
                "reviewer",
                "is missing: identity is open, so say who you are",
            )
        return name
    own = principal.name if principal.issuer is None else f"{principal.name} ({principal.issuer})"
    if name not in (None, own):
        reason = f"is {name!r}, but the key says {own!r}; leave it out"
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "reviewer", reason)
    return own
