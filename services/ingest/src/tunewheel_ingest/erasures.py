"""Up to which moment an erasure takes what was published."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ErasureRequested


class Moments:
    """A fold over ``erasure.requested``: event id → the moment at which it was asked for first.

    A client that sends a request anew, with its id and a later time, asks for no more than before: what was
    published since stays.
    """

    def __init__(self) -> None:
        self._first: dict[str, datetime] = {}

    def apply(self, event: Envelope[Any]) -> None:
        """Take note of one event; a second time changes nothing."""
        if isinstance(event.data, ErasureRequested):
            self.of(event)

    def of(self, event: Envelope[ErasureRequested]) -> datetime:
        """Return the moment up to which ``event`` takes: its ``requested_at``, else its time, the first."""
        moment = event.data.requested_at or event.time
        self._first[event.id] = min(moment, self._first.get(event.id, moment))
        return self._first[event.id]
