"""Whether a loss has left for good."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median

FIRST, LAST = 5, 10
"""Steps whose median is the beginning, and the present: a few hard batches are no trend."""
TIMES, MORE = 2.0, 1.0
"""The present is both so many times and so much more than the beginning: noise is neither."""


class Divergence:
    """Shown every step's loss; ``saw`` returns what is wrong, once something is. Kept in checkpoints: to a
    process that began in the midst of it, losses that have left would be the beginning."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=LAST)

    def saw(self, loss: float) -> str | None:
        if not math.isfinite(loss):
            return "made the loss diverge to no number"
        if len(self._first) < FIRST:
            self._first.append(loss)
            return None
        self._last.append(loss)
        if len(self._last) < LAST:
            return None
        began, now = median(self._first), median(self._last)
        if now > TIMES * began and now > began + MORE:
            return f"made the loss diverge from {began:.2f} to {now:.2f}"
        return None

    def state(self) -> dict[str, list[float]]:
        return {"first": list(self._first), "last": list(self._last)}

    def restore(self, state: Mapping[str, Sequence[float]]) -> None:
        """Go on from ``state()`` of an earlier process; one from before there was any begins anew."""
        self._first = list(state.get("first", ()))
        self._last = deque(state.get("last", ()), maxlen=LAST)
