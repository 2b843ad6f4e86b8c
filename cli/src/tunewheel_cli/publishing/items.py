"""The items of a source: records that are not checked yet, files for ingest, and refusals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tunewheel_contracts.errors import TunewheelError


class Kind(StrEnum):
    TICKET = "ticket"
    EXAMPLE = "example"
    DOCUMENT = "document"


class SourceUnusable(TunewheelError):
    """The path, or an option for it, cannot be used, and nothing was published."""


@dataclass(frozen=True, slots=True)
class Found:
    """One record as found in its source. ``where`` is ``line 12`` or a file's name."""

    where: str
    line: int | None
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A document whose bytes are sent to ingest, because only ingest can read or decode it."""

    where: str
    path: Path
    document_id: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """One record that is not published, and how to correct it."""

    where: str
    line: int | None
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.field} {self.reason}"


Source = Iterator[Found | FoundFile | Refusal]
