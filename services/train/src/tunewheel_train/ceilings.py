"""Divides the ceilings of a sweep among its runs, so that they never use more together. Knows no training."""

from __future__ import annotations

from collections.abc import Iterable

from tunewheel_contracts.events.training import SweepRequested
from tunewheel_contracts.formats.sweep import TriedRun

from tunewheel_train.errors import RunFailed

CEILINGS = ("train.max_hours", "train.max_dollars")


class Ceilings:
    """The ceilings of one sweep, and how much of each the runs that are being trained may use."""

    def __init__(self, event: SweepRequested) -> None:
        asked = {"max_hours": event.max_hours, "max_dollars": event.max_dollars}
        self._asked = {name: most for name, most in asked.items() if most is not None}
        self._held: dict[str, dict[str, float]] = {}

    def hold(self, begun: TriedRun, runs: Iterable[TriedRun], share: float) -> dict[str, float]:
        """Return the ceilings of the run that begins: what it has used, and ``share`` of what is left of the
        sweep's after what all ``runs`` used and what others hold. Raises RunFailed: nothing is left."""
        self.release(begun.run_id)
        all_used = [_used(run) for run in runs]
        held: dict[str, float] = {}
        for name, most in self._asked.items():
            left = most - sum(one[name] for one in (*all_used, *self._held.values()))
            if left <= 0:
                raise RunFailed(field=f"train.{name}", reason="was reached; raise the ceiling of the sweep")
            held[name] = left * share
        self._held[begun.run_id] = held
        own = _used(begun)
        return {name: own[name] + more for name, more in held.items()}

    def release(self, run_id: str) -> None:
        """Take back what a run holds: what it used counts from now on."""
        self._held.pop(run_id, None)


def _used(run: TriedRun) -> dict[str, float]:
    return {"max_hours": run.seconds / 3600, "max_dollars": run.dollars or 0.0}
