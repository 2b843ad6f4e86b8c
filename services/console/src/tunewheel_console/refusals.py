"""What people are refused on a page or over HTTP, and in whose name they speak."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import HTTPException
from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent, TransientError, TunewheelError, first_complaint
from tunewheel_runtime.identity.roles import Caller, NotAuthorised


class Refused(TunewheelError):
    """What was asked cannot be done; ``field`` names what to mend, ``status`` is what HTTP answers."""

    def __init__(self, status: HTTPStatus, field: str, reason: str) -> None:
        self.status = status
        self.field = field
        super().__init__(f"{field}: {reason}")


NOT_KEPT = (Refused, TransientError, InvalidEvent, NotAuthorised, ValidationError)
"""Why something that a person did on a page is not kept."""


def reason_of(error: Exception) -> str:
    """Return one of ``NOT_KEPT`` in words."""
    if isinstance(error, ValidationError):
        field, reason = first_complaint(error)
        return f"{field} {reason}"
    return str(error)


@asynccontextmanager
async def told_over_http() -> AsyncGenerator[None]:
    """Turn what cannot be done into the answer that says why: 503 while the broker or the store is away, 413
    for an event that is too long, 422 for a value that cannot be."""
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
    """Return whose answers these are: the caller's, by the one name that nobody else has; ``name`` where
    identity is open.

    Raises:
        Refused: nobody is named, or somebody else than the caller.
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
