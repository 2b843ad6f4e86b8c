"""Errors named by the decision they cause.

    TunewheelError
    ├── InvalidEvent     the input is wrong: dead letter, never retried
    ├── InvalidSpec      a project spec is wrong: refused before it is declared
    └── TransientError   the world is wrong for now: retry with backoff

Anything else stops the service, loudly.
"""

from __future__ import annotations

from pydantic import ValidationError


class TunewheelError(Exception):
    """Root of the errors that Tunewheel raises on purpose."""


class InvalidEvent(TunewheelError):
    """An event that no retry can mend. ``field`` names what is wrong, ``reason`` says how to mend it."""

    def __init__(self, *, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason

    @classmethod
    def from_validation(cls, error: ValidationError) -> InvalidEvent:
        """Take the first of pydantic's complaints, with the count of the others."""
        field, reason = first_complaint(error)
        return cls(field=field, reason=reason)


class InvalidSpec(TunewheelError):
    """A project spec that must not be declared. ``field`` is the dotted path in the YAML."""

    def __init__(self, *, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class TransientError(TunewheelError):
    """The broker, the store or an upstream is away: the same call may succeed later."""


def first_complaint(error: ValidationError) -> tuple[str, str]:
    """Return (dotted field, reason) of the first of pydantic's errors; the reason counts the others."""
    complaints = error.errors(include_url=False)
    first = complaints[0]
    field = ".".join(str(part) for part in first["loc"]) or "(body)"
    reason = first["msg"]
    if first["type"] == "json_invalid":
        field, reason = "(body)", f"is not JSON: {reason.removeprefix('Invalid JSON: ')}"
    if len(complaints) > 1:
        reason = f"{reason} (and {len(complaints) - 1} more)"
    return field, reason
