"""Whether a loss has left for good."""

from __future__ import annotations

import math
from collections import deque
from statistics import median

FIRST, LAST = 5, 10
"""Steps whose median is the beginning, and the present: a few hard batches are no trend."""
TIMES, MORE = 2.0, 1.0
"""The present is both so many times and so much more than the beginning: noise is neither."""


class Divergence:
    """Shown every step's loss; ``saw`` returns what is wrong, once something is."""

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
