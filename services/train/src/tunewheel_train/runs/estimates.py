"""Completed runs on the log, as what corrects the next estimate."""

from __future__ import annotations

from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.planning.calibration import Calibration, Outcome


def learn(calibration: Calibration, completed: TrainCompleted) -> None:
    """Add a run that was planned and measured, and did what the plan foresaw."""
    usage = completed.usage
    if completed.plan is not None and usage is not None and usage.comparable:
        calibration.add(Outcome(completed.plan, usage.tokens_per_second, usage.peak_bytes))
