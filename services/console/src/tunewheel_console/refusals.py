"""Refusals, and the name under which a person answers."""

from __future__ import annotations

from http import HTTPStatus

from pydantic import ValidationError
from tunewheel_contracts.errors import (
    InvalidEvent,
    TransientError,
    first_complaint,
)
from tunewheel_runtime.identity.roles import Caller, NotAuthorised
from tunewheel_runtime.refusals import Refused

NOT_KEPT = (Refused, TransientError, InvalidEvent, NotAuthorised, ValidationError)
"""The errors after which a person's input on a page is not kept."""


def reason_of(error: Exception) -> str:
    """Return the text of an error of ``NOT_KEPT``."""
    if isinstance(error, ValidationError):
        field, reason = first_complaint(error)
        return f"{field} {reason}"
    return str(error)


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
