"""Refusals, and the name under which a person answers."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Self

from pydantic import ValidationError
from tunewheel_contracts.errors import (
    InvalidEvent,
    TransientError,
    TunewheelError,
    complaints,
    first_complaint,
)
from tunewheel_runtime.identity.roles import Caller, NotAuthorised


class Refused(TunewheelError):
    """A request that cannot be carried out. ``field`` is the field to correct; ``status`` is the HTTP
    status."""

    def __init__(
        self, status: HTTPStatus, field: str | None, reason: str, *, others: Iterable[tuple[str, str]] = ()
    ) -> None:
        """``others``: field and reason of the other faults."""
        self.status = status
        self.field = field
        self.faults = [(field, reason), *others] if field is not None else []
        more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
        super().__init__(reason if field is None else f"{field}: {reason}{more}")

    @classmethod
    def of(cls, error: ValidationError) -> Self:
        """Return a refusal that names every invalid field."""
        (field, reason), *others = complaints(error)
        return cls(HTTPStatus.UNPROCESSABLE_ENTITY, field, reason, others=others)


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
