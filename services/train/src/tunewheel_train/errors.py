"""The errors of a run:

RunFailed(FieldError)        the run cannot succeed without a change: train.failed, never retried
RunStopped(TunewheelError)   the worker was asked to stop, and stopped after writing a checkpoint

And of an export:

NotExported(TunewheelError)  there is nothing to export, or not in the requested form
  └── NotEqual               the written model gives other answers than the trained one
"""

from __future__ import annotations

from tunewheel_contracts.errors import FieldError, TunewheelError
from tunewheel_contracts.formats.plan import TrainPlan


class RunFailed(FieldError):
    """``field`` names the field of the spec to change, or ``(run)`` if it is none. ``reason`` says what is
    wrong and how to mend it."""

    def __init__(
        self,
        *,
        field: str,
        reason: str,
        step: int = 0,
        total_steps: int = 0,
        record_ids: tuple[str, ...] = (),
        out_of_memory: bool = False,
        superseded_by: str | None = None,
        seconds: float = 0.0,
        plan: TrainPlan | None = None,
    ) -> None:
        super().__init__(field, reason)
        self.step = step
        self.total_steps = total_steps
        self.record_ids = record_ids
        self.out_of_memory = out_of_memory
        self.superseded_by = superseded_by
        self.seconds = seconds
        """Of a recipe that is tried: how long it was trained in vain."""
        self.plan = plan


def superseded(newer: str) -> RunFailed:
    """Return the error of a run that had not begun when the version ``newer`` came."""
    reason = (
        f"was not begun before {newer} superseded its version; `tunewheel run resume` trains it after all"
    )
    return RunFailed(field="(run)", reason=reason, superseded_by=newer)


class RunStopped(TunewheelError):
    """Stopped at a step boundary; ``step`` optimizer steps are in the last checkpoint."""

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped after step {step}")
        self.step = step


class NotExported(TunewheelError):
    """Nothing was written; the message says why, and what to do."""


class NotEqual(NotExported):
    """The written model gave other answers than the trained one, and was removed."""
