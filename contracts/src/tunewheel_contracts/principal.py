"""The principal of an event: the person or application that caused it; the trust that its door grants to the
answer; and the signature of the service that says so."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tunewheel_contracts.fields import SourceId, Strict


class Principal(Strict):
    """The caller, as identified by the HTTP API or the command line that accepted the request.

    It does not hold the caller's roles. Each service that acts on an event looks them up.
    """

    name: SourceId
    """The name of an API key, or the subject of a token."""
    issuer: SourceId | None = None
    """The OIDC issuer (``iss``) of the token; None: the caller used an API key."""
    groups: Annotated[tuple[SourceId, ...], Field(max_length=256)] = ()
    """Those groups in the token that are also in the API's file of keys."""

    @property
    def origin(self) -> str:
        """The name under which records of this caller are listed."""
        return self.name if self.issuer is None else f"{self.name} of {self.issuer}"


class Trust(StrEnum):
    """How trustworthy a record's output is, from least to most."""

    UNVERIFIED = "unverified"
    CORRECTED = "corrected"
    EXPERT = "expert"

    @property
    def rank(self) -> int:
        """The place in the order, 0 for the least trusted."""
        return list(Trust).index(self)


OptionalPrincipal = Annotated[
    Principal | None,
    Field(
        description="The caller behind this event, as identified by the API or its producer; null: unknown.",
        exclude_if=lambda principal: principal is None,  # Earlier releases do not know the field.
    ),
]

OptionalSignature = Annotated[
    str | None,
    Field(
        max_length=2048,
        description="The signature of the service that published this command: a compact JWS (RFC 7515) over "
        "the event's id, its type and the SHA-256 of its other data; null: not signed.",
        exclude_if=lambda signature: signature is None,  # Earlier releases do not know the field.
    ),
]

OptionalAuthority = Annotated[
    Trust | None,
    Field(
        description="The most trust that the caller's roles grant to this answer, as determined by the door "
        "that signed the event; null: as much as the topic grants.",
        exclude_if=lambda authority: authority is None,  # Earlier releases do not know the field.
    ),
]

SET_BY_DOORS = frozenset({"principal", "authority"})
"""The fields of upstream data that a door sets, and that its callers may not send."""
