"""The latest completions in memory, so that most feedback needs no search on the log."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from tunewheel_serve_gateway.completions.kept import Kept


class RecentCompletions:
    """Holds at most ``limit`` logged completions of at most ``limit_bytes`` together. The oldest are dropped
    first. Dropped ones, and after a restart all, are found on the log."""

    def __init__(self, *, limit: int, limit_bytes: int) -> None:
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._held: OrderedDict[str, Kept] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def remember(self, kept: Kept) -> None:
        self._held[kept.completion_id] = kept
        self._bytes += kept.size_bytes
        while self._held and (len(self._held) > self._limit or self._bytes > self._limit_bytes):
            _, oldest = self._held.popitem(last=False)
            self._bytes -= oldest.size_bytes

    def get(self, completion_id: str) -> Kept | None:
        return self._held.get(completion_id)

    def forget(self, is_erased: Callable[[Kept], bool]) -> None:
        """Drop the completions for which ``is_erased`` is true."""
        for kept in [one for one in self._held.values() if is_erased(one)]:
            self._bytes -= self._held.pop(kept.completion_id).size_bytes
