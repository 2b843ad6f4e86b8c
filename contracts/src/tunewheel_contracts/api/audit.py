"""The audit trail: every command of people on the log."""

from __future__ import annotations

from tunewheel_contracts.api.commands import Command


class AuditEntry(Command):
    """A command, who gave it, and at which door."""

    principal: str | None = None
    """The name of the key or the subject of the token; None: nobody was named."""
    issuer: str | None = None
    """The OIDC issuer of the token; None: an API key."""
    door: str
    """The service that published the command, by its own words."""
    signed_by: str | None = None
    """The id of the key that signed the command; None: it has no signature."""
