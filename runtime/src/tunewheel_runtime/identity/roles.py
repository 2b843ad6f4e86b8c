"""The roles of a caller, the projects in which they hold, and its rate limits and budgets."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.fields import PositiveInt, Strict
from tunewheel_contracts.principal import Principal, Trust


class Limits(Strict):
    """The limits of one caller. None: as in the service's settings.

    Tokens of the prompt and of the answer both count.
    """

    requests_per_minute: PositiveInt | None = None
    tokens_per_minute: PositiveInt | None = None
    tokens_per_day: PositiveInt | None = None
    """A budget from midnight to midnight, UTC."""
    tokens_per_month: PositiveInt | None = None
    """A budget of a calendar month, UTC."""


class NotAuthenticated(TunewheelError):
    """The caller is unknown; the message says what to send. HTTP 401."""


class InvalidToken(NotAuthenticated):
    """A token is refused; the message says why and quotes nothing of the token. HTTP 401,
    ``invalid_token``."""


class IssuerAway(NotAuthenticated):
    """The issuer's keys cannot be fetched, so tokens cannot be verified. HTTP 503."""


class NotAuthorised(TunewheelError):
    """The caller lacks a role; the message names the role and the project. HTTP 403."""


class Role(StrEnum):
    """The roles. No role includes another, except that reviewers and operators may read as viewers do."""

    VIEWER = "viewer"
    """Reads projects, models, runs and verdicts."""
    PUBLISHER = "publisher"
    """Sends tickets, documents and examples, and withdraws documents. Its answers are unverified."""
    EXPERT = "expert"
    """The validated answers that its holder sends, with another role, count as an expert's."""
    APPLICATION = "application"
    """Calls models through the gateway, and sends feedback."""
    REVIEWER = "reviewer"
    """Answers reviews and labels."""
    OPERATOR = "operator"
    """Declares projects, builds, trains, promotes, erases."""


READERS = frozenset({Role.VIEWER, Role.REVIEWER, Role.OPERATOR})


@dataclass(frozen=True, slots=True)
class Grant:
    """Grants ``roles`` in ``projects``; None: in all projects."""

    roles: frozenset[Role]
    projects: frozenset[str] | None = None

    def gives(self, role: Role) -> bool:
        return role in self.roles or (role is Role.VIEWER and not READERS.isdisjoint(self.roles))


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal with its present grants. ``principal`` is None if none was named.

    ``limits``: the limits of the principal's key in the file of keys; None: the file sets none.
    """

    principal: Principal | None
    grants: tuple[Grant, ...]
    limits: Limits | None = None
    groups: frozenset[str] = frozenset()
    """The groups of the file of keys that the caller is in."""

    @property
    def name(self) -> str | None:
        return self.principal.name if self.principal else None

    def may(self, role: Role, project: str | None = None) -> bool:
        """Return whether this caller has ``role`` in ``project``; None: in at least one project."""
        return any(
            grant.gives(role) and (project is None or grant.projects is None or project in grant.projects)
            for grant in self.grants
        )

    def authority(self, project: str, *, least: Trust | None) -> Trust | None:
        """Return the most trust of what this caller publishes in ``project``. ``least``: what everybody has
        whom the door lets in."""
        return Trust.EXPERT if self.may(Role.EXPERT, project) else least

    def projects_of(self, *roles: Role) -> frozenset[str] | None:
        """Return the projects in which this caller has one of ``roles``; None: all projects."""
        found: set[str] = set()
        for grant in self.grants:
            if any(grant.gives(role) for role in roles):
                if grant.projects is None:
                    return None
                found |= grant.projects
        return frozenset(found)

    def require(self, role: Role, project: str | None = None) -> None:
        """Raise ``NotAuthorised`` unless this caller has ``role`` in ``project`` (None: in at least one)."""
        if not self.may(role, project):
            place = f"in project {project!r}" if project is not None else "in any project"
            who = self.name or "nobody"
            raise NotAuthorised(f"{who} lacks the role {role.value} {place}; ask for it, or use another key")


ANYBODY = Caller(None, (Grant(frozenset(Role)),))
"""The caller of every request where identity is open; may do everything."""
NOBODY = Caller(None, ())
