"""Who calls, and where people log in."""

from __future__ import annotations

from tunewheel_contracts.fields import Frozen, Timestamp


class OidcLogin(Frozen):
    """The issuer whose tokens the services accept, for a login by device grant (RFC 8628)."""

    issuer: str
    client_id: str
    """The client that people's programs are at the issuer."""
    scope: str


class Login(Frozen):
    """What a program needs to know before it logs in."""

    version: str
    """The release of the console."""
    oidc: OidcLogin | None = None
    """None: only API keys log in."""


class RolesIn(Frozen):
    """Roles, and the projects in which they hold."""

    roles: tuple[str, ...]
    projects: tuple[str, ...] | None = None
    """None: all projects."""


class Addresses(Frozen):
    """The URLs of the wheel's doors for programs and people. None: the operator has not told it."""

    gateway: str | None = None
    ingest: str | None = None
    console: str | None = None


class Me(Frozen):
    """The caller."""

    name: str | None = None
    """The name of the key, or the subject of the token; None: identity is open, and nobody was named."""
    issuer: str | None = None
    """The OIDC issuer of the token; None: the caller used an API key."""
    grants: tuple[RolesIn, ...] = ()
    version: str
    addresses: Addresses


class LoginLink(Frozen):
    """A link that logs a browser in to the console, once."""

    path: str
    """The link below the console's address. It is a secret until it is opened."""
    expires_at: Timestamp
    url: str = ""
    """The whole link, which the client adds."""
