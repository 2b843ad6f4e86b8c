"""The metrics of the eval service about its measuring processes (``runtime.metrics``)."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry.metrics import Meter
from tunewheel_runtime.metrics import Metrics

from tunewheel_eval.job import Progress

COUNTERS: Mapping[str, str] = {
    "items.measured": "Held-out examples and items of the regression set that were answered and scored",
    "processes.died": "Measuring processes that ended without a result",
}
LABELS: Mapping[str, str] = {"items.measured": "contestant"}


class Measured(Metrics):
    def __init__(self, meter: Meter) -> None:
        super().__init__(meter, "eval", COUNTERS, labels=LABELS)
        self._done: dict[tuple[str, str], int] = {}
        """By evaluation under way and contestant: the number of items already counted."""

    def saw(self, progress: Progress, evaluation: str) -> None:
        """Count the new items in ``progress``. The first message of a process includes items already on
        disk."""
        contestant = progress.role.value
        before = self._done.get((evaluation, contestant), 0)
        self._done[evaluation, contestant] = max(before, progress.done)
        self.add("items.measured", max(0, progress.done - before), of=contestant)

    def over(self, evaluation: str) -> None:
        """Forget an evaluation that has its verdict, or that another process continues."""
        self._done = {place: done for place, done in self._done.items() if place[0] != evaluation}
