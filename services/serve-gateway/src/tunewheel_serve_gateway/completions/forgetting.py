"""Decides which of the completions that this gateway holds are covered by an erasure.

A gateway holds completions that wait for the broker, and recent ones that may get feedback.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tunewheel_contracts.erasures import Erasure, Erasures
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ErasureRequested

from tunewheel_serve_gateway.completions.kept import Kept


class Forgetting:
    """All erasures so far, and the completions that each erased here. Applying an event twice is harmless."""

    def __init__(self) -> None:
        self._erasures = Erasures()
        self._asked: dict[str, Erasure] = {}
        self._newest: dict[str, float] = {}
        """By project: Unix seconds after which no erasure covers a completion."""
        self._taken: dict[str, set[str]] = {}
        """By event id: the ids of the erased completions."""

    def apply(self, event: Envelope[ErasureRequested]) -> Callable[[Kept], bool]:
        """Add the erasure; return a function that says whether this erasure covers a completion."""
        self._asked[event.id] = erasure = self._erasures.asked_by(event)
        until = max(self._newest.get(event.project, 0.0), erasure.until.timestamp())
        self._newest[event.project] = until
        return lambda kept: self._takes(event.id, kept)

    def takes(self, kept: Kept) -> bool:
        """Return whether any erasure covers ``kept``."""
        if kept.completed_at > self._newest.get(kept.project, -1.0):
            return False  # The usual case, decided without looking at every erasure of past years.
        return any(self._takes(event_id, kept) for event_id in self._asked)

    def count(self, event_id: str) -> int:
        """Return how many completions the erasure ``event_id`` erased in this process."""
        return len(self._taken.get(event_id, ()))

    def _takes(self, event_id: str, kept: Kept) -> bool:
        at = datetime.fromtimestamp(kept.completed_at, UTC)
        takes = self._asked[event_id].takes(
            project=kept.project, customer=kept.customer, source_id=kept.about, at=at
        )
        if takes:
            self._taken.setdefault(event_id, set()).add(kept.completion_id)
        return takes
