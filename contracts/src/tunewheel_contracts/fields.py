"""Field types that events and artifact formats share. Each refuses values that could do harm in later
code."""

from __future__ import annotations

import ast
import functools
import inspect
import itertools
import json
import re
import sys
from datetime import UTC, datetime
from types import ModuleType
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    StringConstraints,
    ValidationInfo,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, SchemaError, SchemaValidator, core_schema

from tunewheel_contracts.errors import SLUG
from tunewheel_contracts.reading import Reading

Slug = Annotated[str, StringConstraints(pattern=SLUG)]
"""A name that is safe as a path segment, a Kafka key and a model name."""

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Percent = Annotated[int, Field(ge=0, le=100)]
PositiveInt = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
"""A number that JSON can represent (RFC 8259 §6: no NaN, no infinity)."""


def _utc(value: datetime, info: ValidationInfo) -> datetime:
    try:
        date = value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except OverflowError:  # For example the first moment of year 1 in a zone east of Greenwich.
        raise ValueError("is outside the years 1 to 9999 in UTC; correct the time, or leave it out") from None
    return info.context.capped(date) if isinstance(info.context, Reading) else date


Timestamp = Annotated[datetime, Field(json_schema_extra={"format": "date-time"}), AfterValidator(_utc)]
"""A time. Without an offset it counts as UTC, so that all machines read the same time."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def _no_control(value: str) -> str:
    if _CONTROL.search(value):
        raise ValueError("contains control characters; remove them")
    return value


SourceId = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(_no_control)]
"""An id from an upstream system. It is untrusted data and never becomes a path."""


def _relative_path(value: str) -> str:
    # Without pathlib, which took a tenth of the time of reading the log: most events name several files.
    parts = value.split("/")
    if value.startswith("/") or ".." in parts or "\\" in value or ":" in parts[0]:
        raise ValueError("must be a relative path without '..', drive or backslash")
    return value


RelativePath = Annotated[
    str,
    StringConstraints(min_length=1, max_length=512),
    AfterValidator(_no_control),
    AfterValidator(_relative_path),
]
"""A path relative to a root that the reader chooses. It is never absolute and never contains ``..``."""

Text = Annotated[str, StringConstraints(max_length=1_000_000)]

_ESCAPED = re.compile(r"\\[pPxuU]\{[^{}]*\}|\\[^1-9]")
_CLASS = re.compile(r"\[\]?[^\]]*\]")
_NOT_LINEAR = re.compile(r"\(\?(?:<?[=!]|>|\(|P=)|\\[1-9]|[*+?}]\+")


def linear_engine(pattern: str) -> SchemaValidator:
    """Return a validator that accepts texts in which Rust's ``regex`` finds ``pattern``. It takes linear time
    for any text.

    Raises:
        ValueError: the crate's complaint about the pattern.
    """
    try:
        # pydantic-core's regex engine is that crate, which never backtracks.
        return SchemaValidator(core_schema.str_schema(pattern=pattern, regex_engine="rust-regex"))
    except SchemaError as error:
        raise ValueError(str(error).splitlines()[-1].strip()) from error


def linear_complaint(pattern: str) -> str | None:
    """Return the complaint of Rust's ``regex`` about ``pattern``; None if the pattern is valid."""
    try:
        linear_engine(pattern)
    except ValueError as error:
        return str(error)
    return None


def _linear(value: str) -> str:
    if _NOT_LINEAR.search(_CLASS.sub("c", _ESCAPED.sub("c", value))):  # "" would make \d+\s+ possessive
        raise ValueError(
            "uses look-around, back-references, possessive or atomic matching, which no linear-time engine "
            "supports; write it without these"
        )
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError) as error:
        if linear_complaint(value) is not None:  # Rust also accepts patterns that Python does not: \p{Lu}.
            raise ValueError(f"is not a regular expression ({error}); correct it") from None
    return value


LinearPattern = Annotated[str, StringConstraints(min_length=1, max_length=512), AfterValidator(_linear)]
"""A regular expression for a linear-time engine (Rust's ``regex``, RE2), which is safe on hostile text. Run
it only with such an engine: with Python's ``re`` some expressions take exponential time."""


@functools.cache
def _docstrings(module: ModuleType | None) -> dict[tuple[str, str], str]:
    """Return the texts below the fields of a module's classes, by class and field."""
    found: dict[tuple[str, str], str] = {}
    try:
        tree = ast.parse(inspect.getsource(module))  # type: ignore[arg-type]
    except (OSError, TypeError):  # typed into an interpreter, or of no module that was imported
        return found
    for kind in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for statements in itertools.pairwise(kind.body):
            match statements:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    found[kind.name, name] = inspect.cleandoc(text)
                case _:
                    pass
    return found


class Frozen(BaseModel):
    """An immutable value. Unknown fields, which a newer producer may have added, are ignored.

    The text below a field describes it in JSON Schemas. It is read from the source when a schema is made.
    Pydantic's ``use_attribute_docstrings`` reads it at import, which took two fifths of the import's time.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=(), defer_build=True)

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        made = handler(schema)
        properties = handler.resolve_ref_schema(made).get("properties", {})
        for kind in (kind for kind in cls.__mro__ if issubclass(kind, Frozen)):
            texts = _docstrings(sys.modules.get(kind.__module__))
            for name, field in kind.model_fields.items():
                shown = properties.get(field.alias or name)
                if shown is not None and (kind.__name__, name) in texts:
                    shown.setdefault("description", texts[kind.__name__, name])
        return made


class Strict(Frozen):
    """An immutable value that people write. An unknown field is refused, because it may be misspelt."""

    model_config = ConfigDict(extra="forbid")


class ArtifactRef(Frozen):
    """A reference to one immutable object in the object store: its path and its hash."""

    path: RelativePath
    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]

    def name_below(self, folder: str) -> str:
        """Return the path relative to ``folder``. Raises ValueError: it names no file below ``folder``."""
        name = self.path.removeprefix(f"{folder}/")
        # On a disk, "/name" below a folder would be a file anywhere on the machine.
        if name == self.path or not {"", "."}.isdisjoint(name.split("/")):
            raise ValueError(f"{self.path} is not below {folder}")
        return name


def _finite(value: dict[str, Any]) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False, default=str)
    except ValueError as error:
        raise ValueError("holds NaN or an infinity, which JSON cannot represent; remove it") from error
    return value


JsonObject = Annotated[dict[str, Any], AfterValidator(_finite)]


def shared(kind: type[BaseModel], *of: object) -> dict[str, Any]:
    """Return the fields of ``kind`` that ``of`` have under the same names. Where several have a field, the
    last one counts."""
    # hasattr(one, …) would take a property that fails for one that is not there, and compute each one twice.
    return {
        name: getattr(one, name)
        for one in of
        for name in kind.model_fields
        if name in getattr(one, "__dict__", ()) or hasattr(type(one), name)
    }
