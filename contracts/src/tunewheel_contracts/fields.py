"""Field types shared by events and artifact formats, each refusing what could do harm further in."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import SchemaError, SchemaValidator, core_schema

from tunewheel_contracts.errors import SLUG

Slug = Annotated[str, StringConstraints(pattern=SLUG)]
"""A name that is safe as a path segment, a Kafka key and a model name."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Percent = Annotated[int, Field(ge=0, le=100)]
PositiveInt = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
"""A number that JSON has a form for (RFC 8259 §6 knows no NaN and no infinity)."""


def _utc(value: datetime) -> datetime:
    try:
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:  # such as the first moment of year 1 in a zone east of Greenwich
        raise ValueError(
            "lies outside the years 1 to 9999 of UTC; send when it was, or leave it out"
        ) from None


Timestamp = Annotated[datetime, Field(json_schema_extra={"format": "date-time"}), AfterValidator(_utc)]
"""An instant; one without an offset is taken as UTC, so that every machine reads the same."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _no_control(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("contains control characters; remove them")
    return value


SourceId = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_no_control)]
"""An id given by an upstream system. It is data: it never becomes a path."""


def _relative_path(value: str) -> str:
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or "\\" in value or ":" in value.split("/")[0]:
        raise ValueError("must be a relative path without '..', drive or backslash")
    return value


RelativePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    AfterValidator(_no_control),
    AfterValidator(_relative_path),
]
"""A path below some root that the reader chooses: never absolute, never climbing."""

Text = Annotated[str, StringConstraints(max_length=1_000_000)]

_ESCAPED = re.compile(r"\\[pPxuU]\{[^{}]*\}|\\[^1-9]")
_CLASS = re.compile(r"\[\]?[^\]]*\]")
_NOT_LINEAR = re.compile(r"\(\?(?:<?[=!]|>|\(|P=)|\\[1-9]|[*+?}]\+")


def linear_engine(pattern: str) -> SchemaValidator:
    """Return what takes texts that ``pattern`` matches by Rust's ``regex``: in linear time, whatever text.

    Raises:
        ValueError: what that crate has against the pattern.
    """
    try:
        # pydantic-core's own engine is that crate: what it compiles cannot backtrack
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from error


def linear_complaint(pattern: str) -> str | None:
    """Return what Rust's ``regex`` has against ``pattern``; None for one that it knows."""
    try:
        linear_engine(pattern)
    except ValueError as error:
        return str(error)
    return None


def _linear(value: str) -> str:
    if _NOT_LINEAR.search(_CLASS.sub("c", _ESCAPED.sub("c", value))):  # "" would make \d+\s+ possessive
        raise ValueError(
            "uses look-around, back-references, possessive or atomic matching, which no linear-time engine "
            "knows; write it without"
        )
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        if linear_complaint(value) is not None:  # such as \p{Lu}: Rust knows what Python does not
            raise ValueError(f"is no regular expression ({error}); correct it") from None
    return value


LinearPattern = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_linear)]
"""A regular expression that a linear-time engine (Rust's ``regex``, RE2) can run on hostile text. Run it with
such an engine only: Python's ``re`` takes exponential time on some of them."""


class Frozen(BaseModel):
    """A value: immutable, and tolerant of fields that a newer producer added."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", protected_namespaces=(), use_attribute_docstrings=True, defer_build=True
    )


class Strict(BaseModel):
    """A value that people write: a misspelt field is an error, not silence."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True, defer_build=True
    )


class ArtifactRef(Frozen):
    """One immutable object in the object store: where it lies and what it must hash to."""

    path: RelativePath
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False, default=str)
    except ValueError as error:
        raise ValueError("holds NaN or an infinity, which JSON has no form for; remove it") from error
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_finite)]
