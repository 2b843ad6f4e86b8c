"""Errors named by the decision they cause.

    TunewheelError
    ├── InvalidEvent     the input is wrong: dead letter, never retried
    ├── InvalidSpec      a project spec is wrong: refused before it is declared
    └── TransientError   the world is wrong for now: retry with backoff

Anything else stops the service, loudly.
"""

from __future__ import annotations

import re

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError


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


def inconsistent(field: str, reason: str) -> PydanticCustomError:
    """Return what a validator of a whole model raises when one ``field`` contradicts another.

    Pydantic knows no field for it, so it travels in the error's context to ``first_complaint``.
    """
    return PydanticCustomError("inconsistent", "{reason}", {"field": field, "reason": reason})


# pydantic adds the branch of a union it tried to the location; no such field is in the data
_UNION_BRANCH = re.compile(r"(constrained-)?(str|int|float|bool)|[a-z-]+\[.*\]")

_REASONS = {
    "missing": "is missing; add it",
    "extra_forbidden": "is no known field; correct its name or remove it",
}
_WANTED = {
    "string_type": "text in quotes",
    "dict_type": "an object in braces",
    "tuple_type": "a list in brackets",
    "list_type": "a list in brackets",
    "model_type": "an object in braces",
    "model_attributes_type": "an object in braces",
}
"""What to give instead, by pydantic's types of error, which speak of Python's types."""
_GIVEN: dict[type, str] = {
    type(None): "null", str: "text", bool: "true or false", int: "a number", float: "a number",
    dict: "an object",
}  # fmt: skip


def first_complaint(error: ValidationError) -> tuple[str, str]:
    """Return (dotted field, reason) of the first of pydantic's errors; the reason counts the other fields."""
    complaints = error.errors(include_url=False)
    first = complaints[0]
    parts = _parts(first)
    reason = _REASONS.get(first["type"], first["msg"].removeprefix("Value error, "))
    wanted = [_WANTED[c["type"]] for c in complaints if c["type"] in _WANTED and _parts(c) == parts]
    if first["type"] in _WANTED:
        reason = _of_another_type(first["input"], wanted)
    elif first["type"].startswith("datetime"):
        reason = f"is no time ({reason}); write it like 2026-01-31T09:30:00Z"
    if first["type"] == "json_invalid":
        parts, reason = (), f"is not JSON: {reason.removeprefix('Invalid JSON: ')}"
    # a list that lost its only item to an error is then also called too short: no news
    others = {other for other in map(_parts, complaints) if other != parts[: len(other)]}
    if others:
        reason = f"{reason} (and {len(others)} more)"
    return ".".join(parts) or "(body)", reason


def _of_another_type(given: object, wanted: list[str]) -> str:
    reason = f"is {_GIVEN.get(type(given), 'a list')}; give {' or '.join(wanted)}"
    return f"{reason}, or leave an optional field out" if given is None else reason


def _parts(complaint: ErrorDetails) -> tuple[str, ...]:
    location = [str(part) for part in complaint["loc"]]
    if complaint["type"] == "inconsistent":
        location.append(complaint.get("ctx", {})["field"])
    return tuple(part for i, part in enumerate(location) if i == 0 or not _UNION_BRANCH.fullmatch(part))
