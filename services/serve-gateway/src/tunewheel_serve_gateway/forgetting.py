"""What an erasure takes of what this gateway holds: completions that wait for the broker, or for feedback."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime

from tunewheel_contracts.erasures import Erasure, Erasures
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ErasureRequested

from tunewheel_serve_gateway.exchange import Exchange


class Forgetting:
    """A fold over ``erasure.requested``, and what each took here; applying an event twice changes nothing."""

    def __init__(self) -> None:
        self._erasures = Erasures()
        self._asked: dict[str, Erasure] = {}
        self._taken: dict[str, set[str]] = {}
        """By event id: the completions that went."""

    def apply(self, event: Envelope[ErasureRequested]) -> Callable[[Exchange], bool]:
        """Take note of one event; return what tells whether it takes a completion."""
        self._asked[event.id] = self._erasures.asked_by(event)
        return lambda exchange: self._takes((event.id,), exchange)

    def takes(self, exchange: Exchange) -> bool:
        """Tell whether any erasure takes a completion."""
        return self._takes(self._asked, exchange)

    def count(self, event_id: str) -> int:
        """Return how many completions an erasure took in this process."""
        return len(self._taken.get(event_id, ()))

    def _takes(self, event_ids: Iterable[str], exchange: Exchange) -> bool:
        at = datetime.fromtimestamp(exchange.completed_at, UTC)
        name = exchange.shadow_of or exchange.completion_id
        for event_id in event_ids:
            if self._asked[event_id].takes(
                project=exchange.project, customer=exchange.user, source_id=name, at=at
            ):
                self._taken.setdefault(event_id, set()).add(exchange.completion_id)
                return True
        return False
