"""The result of publishing a path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tunewheel_cli.publishing.items import Refusal

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

    def as_json(self) -> dict[str, Any]:
        """Return the summary for machines."""
        refusals = [
            {"line": r.line, "where": r.where, "field": r.field, "reason": r.reason} for r in self.refusals
        ]
        return {
            "path": self.path,
            "published": self.events,
            "by_topic": dict(self.published),
            "refused": self.refused,
            "refusals": refusals,
            "bytes": self.read_bytes,
            "seconds": round(self.seconds, 3),
        }


OnProgress = Callable[[Summary], None]
