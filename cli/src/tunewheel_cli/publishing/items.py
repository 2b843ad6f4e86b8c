"""The items of a source: records that are not checked yet, files for ingest, and refusals; and the summary of
what was published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tunewheel_contracts.errors import TunewheelError

from tunewheel_cli.publishing.formats.form import LeftOut


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
    kind: Kind | None = None
    """None: the command or the id field tells it."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A document whose bytes are sent to ingest, because only ingest can read or decode it."""

    where: str
    path: Path
    document_id: str
    media_type: str | None
    """None: ingest knows the type by the ending, or refuses the file."""
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


Item = Found | FoundFile | Refusal


@dataclass(slots=True)
class Source:
    """The items of a path, to be iterated over once."""

    items: Iterable[Item]
    form: str | None = None
    """What the file was recognised as."""
    note: str | None = None
    left: LeftOut = field(default_factory=LeftOut)
    """What examples cannot hold, in words, and how often it was left out so far."""

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)

    @property
    def notes(self) -> list[str]:
        """What a publisher should know about the items, in sentences without a full stop."""
        said = [f"left out: {count:,} {what}" for what, count in self.left.items() if count]
        return [*([self.note] if self.note else []), *said]


KEPT_REFUSALS = 1_000
"""How many refusals are kept. More are only counted."""


@dataclass(slots=True)
class Summary:
    """The result of publishing a path."""

    path: str
    total_bytes: int
    read_bytes: int = 0
    published: Counter[str] = field(default_factory=Counter)
    """By topic, the number of acknowledged events."""
    refused: int = 0
    refusals: list[Refusal] = field(default_factory=list)
    lowered: int = 0
    """How many validated answers are trusted less than they state; ``notes`` say why."""
    form: str | None = None
    """What the file was recognised as."""
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def events(self) -> int:
        return self.published.total()

    def count(self, size: int) -> None:
        self.read_bytes += size

    def refuse(self, refusal: Refusal) -> None:
        self.refused += 1
        if len(self.refusals) < KEPT_REFUSALS:
            self.refusals.append(refusal)

    def lower(self, lowered: Counter[str]) -> None:
        """Note the answers that are trusted less than they state, by what is said of them."""
        self.lowered = lowered.total()
        self.notes += [f"{count:,} validated answers {said}" for said, count in lowered.items()]

    def as_json(self) -> dict[str, Any]:
        """Return the summary for machines."""
        refusals = [
            {"line": r.line, "where": r.where, "field": r.field, "reason": r.reason} for r in self.refusals
        ]
        return {
            "path": self.path,
            "form": self.form,
            "notes": self.notes,
            "published": self.events,
            "by_topic": dict(self.published),
            "refused": self.refused,
            "refusals": refusals,
            "lowered": self.lowered,
            "bytes": self.read_bytes,
            "seconds": round(self.seconds, 3),
        }


OnProgress = Callable[[Summary], None]
