"""Completed runs on the log, as what corrects the next estimate."""

from __future__ import annotations

from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.planning.calibration import Calibration, Outcome


def learn(calibration: Calibration, completed: TrainCompleted) -> None:
    """Add a run that was planned and measured."""
    if completed.plan is not None and completed.usage is not None:
        usage = completed.usage
        calibration.add(Outcome(completed.plan, usage.tokens_per_second, usage.peak_bytes))
