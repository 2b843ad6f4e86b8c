"""Detects that the loss diverged."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from statistics import median

FIRST, LAST = 5, 10
"""The medians of the first ``FIRST`` and of the last ``LAST`` steps are compared. Medians ignore a few hard
batches."""
TIMES, MORE = 2.0, 1.0
"""The loss diverged if the last median is more than ``TIMES`` times the first, and larger by more than
``MORE``."""


class Divergence:
    """Call ``saw`` with every step's loss; it returns a complaint once the loss diverged. The state is kept
    in checkpoints. Otherwise a resumed process would take high losses for the beginning."""

    def __init__(self) -> None:
        self._first: list[float] = []
        self._last: deque[float] = deque(maxlen=LAST)

    def saw(self, loss: float) -> str | None:
        if not math.isfinite(loss):
            return "made the loss diverge to a value that is not finite"
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
        """Continue from ``state()`` of an earlier process. A checkpoint without this state starts anew."""
        self._first = list(state.get("first", ()))
        self._last = deque(state.get("last", ()), maxlen=LAST)
