"""Tells events as they come. Holds the latest, for readers whose connection was interrupted."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tunewheel_contracts.event import Envelope

from tunewheel_console.project import TRAFFIC

HELD = 10_000
"""The most events that are held."""
WAITING = 2_000
"""The most events that wait for one reader. A slower reader misses events, and is told so."""
WAITING_BYTES = 8 << 20
"""The most bytes of ``TRAFFIC`` that wait for one reader: two thousand long conversations would fill the
memory."""
Wanted = Callable[[Envelope[Any]], bool]


@dataclass(eq=False)
class Reader:
    """One reader of the feed."""

    wanted: Wanted
    events: deque[Envelope[Any]] = field(default_factory=deque[Envelope[Any]])
    """The events that wait to be told."""
    size: int = 0
    """How many bytes of ``TRAFFIC`` wait."""
    has_gap: bool = False
    """Whether events are missing before those that wait."""
    news: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while events wait."""

    def add(self, event: Envelope[Any]) -> None:
        size = len(event.data.model_dump_json()) if isinstance(event.data, TRAFFIC) else 0
        if len(self.events) >= WAITING or self.size + size > WAITING_BYTES:
            self.events.clear()
            self.size = 0
            self.has_gap = True
        self.size += size
        self.events.append(event)
        self.news.set()

    def take(self) -> tuple[bool, list[Envelope[Any]]]:
        """Return whether events are missing, and those that wait."""
        found = self.has_gap, list(self.events)
        self.has_gap = False
        self.events.clear()
        self.size = 0
        self.news.clear()
        return found


class Feed:
    """The events of all projects, in the order in which they were read."""

    def __init__(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """``is_over`` says whether the process stops, so that its readers should leave."""
        self.is_over = is_over
        self._held: deque[Envelope[Any]] = deque(maxlen=HELD)
        self._readers: set[Reader] = set()

    def add(self, event: Envelope[Any]) -> None:
        # Events with texts of users are told and never held, so no erasure has to find them here.
        if not isinstance(event.data, TRAFFIC):
            self._held.append(event)
        for reader in self._readers:
            if reader.wanted(event):
                reader.add(event)

    @contextmanager
    def reader(self, wanted: Wanted, *, after: str | None = None) -> Iterator[Reader]:
        """Give the events that ``wanted`` accepts: those after the accepted event with the id ``after``, if
        that is still held, and then new ones."""
        reader = Reader(wanted)
        if after is not None:
            newest_first = enumerate(reversed(self._held), 1)
            at = next((n for n, held in newest_first if held.id == after and wanted(held)), None)
            reader.has_gap = at is None
            missed = islice(self._held, len(self._held) - at + 1, None) if at is not None else ()
            reader.events.extend(held for held in missed if wanted(held))
        if reader.events or reader.has_gap:
            reader.news.set()
        self._readers.add(reader)
        try:
            yield reader
        finally:
            self._readers.discard(reader)
