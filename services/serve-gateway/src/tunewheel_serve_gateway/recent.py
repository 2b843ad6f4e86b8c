"""The latest completions, so that feedback can name one by its id alone."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from tunewheel_serve_gateway.exchange import Exchange


class RecentCompletions:
    """Holds at most ``limit`` completions of at most ``limit_bytes`` together; the oldest go first.

    A convenience, not a record: a restart forgets them, and feedback then brings its own messages.
    """

    def __init__(self, *, limit: int, limit_bytes: int) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[str, Exchange] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def remember(self, exchange: Exchange) -> None:
        self._held[exchange.completion_id] = exchange
        self._bytes += exchange.size_bytes
        while self._held and (len(self._held) > self._limit or self._bytes > self._limit_bytes):
            _, oldest = self._held.popitem(last=False)
            self._bytes -= oldest.size_bytes

    def get(self, completion_id: str) -> Exchange | None:
        return self._held.get(completion_id)

    def forget(self, is_erased: Callable[[Exchange], bool]) -> None:
        """Drop what an erasure takes."""
        for exchange in [one for one in self._held.values() if is_erased(one)]:
            self._bytes -= self._held.pop(exchange.completion_id).size_bytes
