"""What an erasure takes of what this gateway holds: completions that wait for the broker, or for feedback."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

from tunewheel_contracts.erasures import Erasure, Erasures
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ErasureRequested

from tunewheel_serve_gateway.completions.kept import Kept


class Forgetting:
    """A fold over ``erasure.requested``, and what each took here; applying an event twice changes nothing."""

    def __init__(self) -> None:
        self._erasures = Erasures()
        self._asked: dict[str, Erasure] = {}
        self._newest: dict[str, float] = {}
        """By project: Unix seconds from which on no erasure takes anything."""
        self._taken: dict[str, set[str]] = {}
        """By event id: the completions that went."""

    def apply(self, event: Envelope[ErasureRequested]) -> Callable[[Kept], bool]:
        """Take note of one event; return what tells whether it takes a completion."""
        self._asked[event.id] = erasure = self._erasures.asked_by(event)
        until = max(self._newest.get(event.project, 0.0), erasure.until.timestamp())
        self._newest[event.project] = until
        return lambda kept: self._takes(event.id, kept)

    def takes(self, kept: Kept) -> bool:
        """Tell whether any erasure takes a completion."""
        if kept.completed_at > self._newest.get(kept.project, -1.0):
            return False  # nearly always: without going through the erasures of years
        return any(self._takes(event_id, kept) for event_id in self._asked)

    def count(self, event_id: str) -> int:
        """Return how many completions an erasure took in this process."""
        return len(self._taken.get(event_id, ()))

    def _takes(self, event_id: str, kept: Kept) -> bool:
        at = datetime.fromtimestamp(kept.completed_at, UTC)
        takes = self._asked[event_id].takes(
            project=kept.project, customer=kept.customer, source_id=kept.about, at=at
        )
        if takes:
            self._taken.setdefault(event_id, set()).add(kept.completion_id)
        return takes
