"""Finds stop strings in text that arrives piece by piece."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Returns text as soon as it can no longer be the beginning of a stop string.

    The text ends before the stop string, as in OpenAI's API. With ``include`` it ends after the piece that
    completes the stop string, and no text is held back, as in TGI.
    """

    def __init__(self, stops: Sequence[str], *, include: bool = False) -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._include = include
        self._longest = max((len(stop) for stop in self._stops), default=0)
        self._pending = ""
        self.matched = False

    def feed(self, piece: str) -> str:
        """Add ``piece``; return the text that may be sent now. After a match (``matched``) it is always
        empty."""
        if self.matched or not self._stops:
            return "" if self.matched else piece
        self._pending += piece
        found = [at for stop in self._stops if (at := self._pending.find(stop)) >= 0]
        self.matched = bool(found)
        if self._include:
            self._pending = self._pending[-(self._longest - 1) :] if self._longest > 1 else ""
            return piece
        if found:
            return self._take(min(found))
        return self._take(len(self._pending) - self._held())

    def flush(self) -> str:
        """Return the text that was held back. Call it at the end of the answer."""
        return "" if self.matched or self._include else self._take(len(self._pending))

    def _take(self, length: int) -> str:
        out, self._pending = self._pending[:length], self._pending[length:]
        return out

    def _held(self) -> int:
        """Return the length of the longest end of the pending text that is the beginning of a stop string."""
        for length in range(min(self._longest - 1, len(self._pending)), 0, -1):
            tail = self._pending[-length:]
            if any(stop.startswith(tail) for stop in self._stops):
                return length
        return 0
