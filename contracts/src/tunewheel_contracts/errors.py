"""Errors named by the decision they cause.

    TunewheelError
    ├── InvalidEvent     the input is wrong: dead letter, never retried
    ├── InvalidSpec      a project spec is wrong: refused before it is declared
    └── TransientError   something is unavailable for now: retried with backoff

Any other exception stops the service with an error.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from datetime import date, datetime

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError


class TunewheelError(Exception):
    """Root of the errors that Tunewheel raises on purpose."""


class FieldError(TunewheelError):
    """``field``: what to correct. ``reason``: the fault and the fix."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class InvalidEvent(TunewheelError):
    """An invalid event, which a retry cannot help. ``field``: the wrong field. ``reason``: the fault and the
    fix."""

    def __init__(self, *, field: str, reason: str) -> None:
        super().__init__(f"{field} {reason}")
        self.field = field
        self.reason = reason

    @classmethod
    def from_validation(cls, error: ValidationError) -> InvalidEvent:
        """Return an error with pydantic's first complaint and the number of the others."""
        field, reason = first_complaint(error)
        return cls(field=field, reason=reason)


class InvalidSpec(TunewheelError):
    """An invalid project spec. ``field``: the dotted path in the YAML. ``others``: field and reason of the
    other faults."""

    def __init__(self, *, field: str, reason: str, others: Iterable[tuple[str, str]] = ()) -> None:
        self.field = field
        self.reason = reason
        self.faults = ((field, reason), *others)
        more = f" (and {len(self.faults) - 1} more)" if len(self.faults) > 1 else ""
        super().__init__(f"{field}: {reason}{more}")

    @classmethod
    def of(cls, faults: Iterable[tuple[str, str]]) -> InvalidSpec:
        """Return an error with all ``faults``, of which there is one at least."""
        (field, reason), *others = dict.fromkeys(faults)
        return cls(field=field, reason=reason, others=others)


def check_all(*checks: Callable[[], object]) -> None:
    """Run every check of a spec.

    Raises:
        InvalidSpec: with the faults of all checks.
    """
    faults: list[tuple[str, str]] = []
    for check in checks:
        try:
            check()
        except InvalidSpec as error:
            faults += error.faults
    if faults:
        raise InvalidSpec.of(faults)


class TransientError(TunewheelError):
    """The broker, the store or another system is unavailable; the same call may succeed later."""


def inconsistent(field: str, reason: str) -> PydanticCustomError:
    """Return the error that a validator of a whole model raises if ``field`` contradicts another field.

    Pydantic records no field for such an error. So the field is put into the error's context, where
    ``first_complaint`` reads it.
    """
    return PydanticCustomError("inconsistent", "{reason}", {"field": field, "reason": reason})


# Pydantic adds the tried branch of a union to the location. The data has no such field.
_UNION_BRANCH = re.compile(r"(constrained-)?(str|int|float|bool)|[a-z-]+\[.*\]")

_REASONS = {
    "missing": "is missing; add it",
    "extra_forbidden": "is no known field; correct its name or remove it",
    "greater_than": "is too small; give more than {gt}",
    "greater_than_equal": "is too small; give at least {ge}",
    "less_than": "is too large; give less than {lt}",
    "less_than_equal": "is too large; give at most {le}",
}
_WANTED = {
    "string_type": "text in quotes",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "dict_type": "an object in braces",
    "tuple_type": "a list in brackets",
    "list_type": "a list in brackets",
    "model_type": "an object in braces",
    "model_attributes_type": "an object in braces",
    "literal_error": "{expected}",
    "enum": "{expected}",
}
"""The expected form by pydantic's error type. Pydantic's own messages name Python types."""
_VALUES = {"literal_error", "enum"}
"""The types of error of a field that accepts known values only."""
_GIVEN: dict[type, str] = {
    type(None): "null", str: "text", bool: "true or false", int: "a number", float: "a number",
    dict: "an object", date: "a date", datetime: "a date",
}  # fmt: skip
SLUG = r"^[a-z0-9][a-z0-9._-]{0,62}$"
"""What names look like that are path segments, Kafka keys and model names."""
SLUG_IN_WORDS = (
    "a to z, 0 to 9, dots, - and _, 63 characters at most, of which the first is a letter or digit"
)
_FORMS = {SLUG: SLUG_IN_WORDS}
"""Descriptions of patterns, for people who do not read regular expressions."""


def first_complaint(error: ValidationError) -> tuple[str, str]:
    """Return the dotted field and the reason of pydantic's first error. The reason includes the number of
    other fields with errors."""
    (field, reason), *others = complaints(error)
    return field, f"{reason} (and {len(others)} more)" if others else reason


def complaints(error: ValidationError | Sequence[ErrorDetails]) -> list[tuple[str, str]]:
    """Return the dotted field and the reason of each wrong field, in pydantic's order. There is at least one.

    A reason never repeats a value: a value may be personal, and reasons go to dead letters and logs.
    """
    by_field: dict[tuple[str, ...], list[ErrorDetails]] = {}
    for complaint in error.errors(include_url=False) if isinstance(error, ValidationError) else error:
        parts = () if complaint["type"] == "json_invalid" else _parts(complaint)
        by_field.setdefault(parts, []).append(complaint)
    # If a list's only item is invalid, pydantic also reports the list as too short; skip that.
    first = next(iter(by_field))
    around = {parts[:length] for parts in by_field for length in range(len(parts))}
    kept = [parts for parts in by_field if parts == first or parts not in around]
    return [(".".join(parts) or "(body)", _reason_of(by_field[parts])) for parts in kept]


def _reason_of(alike: list[ErrorDetails]) -> str:
    """Return the reason of one field's errors: the branches of a union complain each."""
    first = alike[0]
    if first["type"] == "json_invalid":
        return f"is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}"
    if first["type"] in _WANTED:
        return _of_another_kind(first, [one for one in alike if one["type"] in _WANTED])
    return _reason(first)


def _reason(complaint: ErrorDetails) -> str:
    kind, said, more = complaint["type"], complaint["msg"], complaint.get("ctx", {})
    if kind in _REASONS:
        return _REASONS[kind].format(**more)
    if kind == "string_pattern_mismatch":
        pattern = more["pattern"]
        form = f"give {_FORMS[pattern]}" if pattern in _FORMS else "give text of that form"
        return f"does not match {pattern}; {form}"
    if kind.startswith("datetime"):
        return f"is not a time ({said}); write it like 2026-01-31T09:30:00Z"
    return said.removeprefix("Value error, ")


def _of_another_kind(first: ErrorDetails, alike: list[ErrorDetails]) -> str:
    """Return the reason: what was given, and what each branch of a union accepts instead."""
    sent: object = first["input"]
    kinds = [complaint["type"] for complaint in alike]
    is_bare_word = isinstance(sent, bool) and not _VALUES.isdisjoint(kinds)
    wanted = " or ".join(dict.fromkeys(_wanted(c, in_quotes=is_bare_word) for c in alike))
    if is_bare_word:
        return f"is true or false (YAML reads on, off, yes and no so); give {wanted}"
    if isinstance(sent, str) and _VALUES.issuperset(kinds):
        return f"is not one of the known values; give {wanted}"
    reason = f"is {_GIVEN.get(type(sent), 'a list')}; give {wanted}"
    return f"{reason}, or leave an optional field out" if sent is None else reason


def _wanted(complaint: ErrorDetails, *, in_quotes: bool) -> str:
    """Return the form that one branch accepts. ``in_quotes``: say of known values that they need quotes."""
    wanted = _WANTED[complaint["type"]].format(**complaint.get("ctx", {}))
    return f"{wanted} in quotes" if in_quotes and complaint["type"] in _VALUES else wanted


def _parts(complaint: ErrorDetails) -> tuple[str, ...]:
    location = [str(part) for part in complaint["loc"]]
    if complaint["type"] == "inconsistent":
        location.append(complaint.get("ctx", {})["field"])
    return tuple(part for i, part in enumerate(location) if i == 0 or not _UNION_BRANCH.fullmatch(part))
