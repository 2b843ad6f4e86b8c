"""Who asked for something, as events say it."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import SourceId, Strict


class Principal(Strict):
    """Who asked, as the HTTP door or the command line that took the wish made sure of it.

    What a principal may do is not part of it: each service that acts on an event looks that up for itself.
    """

    name: SourceId
    """The name of an API key, or the subject of a token."""
    issuer: SourceId | None = None
    """The OIDC issuer (``iss``) of the token; None: an API key."""
    groups: Annotated[tuple[SourceId, ...], Field(max_length=256)] = ()
    """Of the groups that the token named, those that the door's file of keys knows."""


OptionalPrincipal = Annotated[
    Principal | None,
    Field(
        description="Who is behind this event, as its door or its producer says; null: not said.",
        exclude_if=lambda principal: principal is None,  # readers of before know no such field
    ),
]
