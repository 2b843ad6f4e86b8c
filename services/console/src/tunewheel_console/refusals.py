"""The name under which a person answers."""

from __future__ import annotations

from http import HTTPStatus

from tunewheel_runtime.identity.roles import Caller
from tunewheel_runtime.refusals import Refused


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
