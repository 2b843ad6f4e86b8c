"""The cost of past runs and of the next one, in GPU hours and dollars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from tunewheel_contracts.formats.plan import TrainPlan

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of a run. ``gpu_hours`` is 0 on a processor; ``dollars`` is 0 if the device has no price. A
    run on several GPUs counts its hours once, and its dollars for each GPU."""

    gpu_hours: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.gpu_hours + other.gpu_hours, self.dollars + other.dollars)


@dataclass(frozen=True, slots=True)
class Run:
    """One run and its cost so far, or its expected cost while it runs."""

    planned_at: datetime
    cost: Cost


def planned_cost(plan: TrainPlan, *, completed: float = 1.0) -> Cost:
    """Return the expected cost of the share ``completed`` (0 to 1) of a planned run."""
    return _cost(plan, plan.hours.expected * completed)


def measured_cost(plan: TrainPlan, *, wall_seconds: float) -> Cost:
    """Return the cost of a run that was planned as ``plan`` and took ``wall_seconds``."""
    return _cost(plan, wall_seconds / SECONDS_PER_HOUR)


def spent_in_month(runs: Iterable[Run], now: datetime) -> Cost:
    """Return the cost of the runs that were planned in the calendar month of ``now``, in UTC."""
    month = _month(now)
    return sum((run.cost for run in runs if _month(run.planned_at) == month), Cost())


def next_month(now: datetime) -> datetime:
    """Return the end of the calendar month of ``now``, in UTC."""
    year, month = _month(now)
    return datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)


def _cost(plan: TrainPlan, hours: float) -> Cost:
    gpu_hours = 0.0 if plan.device == "cpu" else hours
    if plan.dollars is None or plan.hours.expected == 0:
        return Cost(gpu_hours)
    return Cost(gpu_hours, plan.dollars.expected / plan.hours.expected * hours)


def _month(at: datetime) -> tuple[int, int]:
    at = at.astimezone(UTC)
    return at.year, at.month
