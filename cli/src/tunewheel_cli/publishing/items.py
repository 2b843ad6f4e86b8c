"""What a source yields: records that are still to be checked, files for ingest to read, and refusals."""

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
    """The path, or an option about it, cannot be used at all: nothing was published."""


@dataclass(frozen=True, slots=True)
class Found:
    """One record as its source has it. ``where`` is ``line 12`` or a file's name."""

    where: str
    line: int | None
    fields: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A document whose bytes go to ingest: it is no text, or text that only ingest can decode."""

    where: str
    path: Path
    document_id: str
    media_type: str
    size: int


@dataclass(frozen=True, slots=True)
class Refusal:
    """One record that is not published, and how to mend it."""

    where: str
    line: int | None
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.field} {self.reason}"


Source = Iterator[Found | FoundFile | Refusal]
