"""Corrects estimates by earlier runs: compares their plans with what was measured."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass

from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_contracts.formats.plan import Interval, TrainPlan
from tunewheel_contracts.formats.run import Usage

REMEMBERED = 20
"""How many runs are remembered per method, device and size. Older runs had older software."""
NARROWEST = 0.1
"""The least relative width of a corrected estimate, however many runs there are: machines are shared."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """A plan, and the measurements of its run."""

    plan: TrainPlan
    tokens_per_second: float
    peak_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Correction:
    """Factors for speed and memory from ``runs`` runs. ``spread``: the relative difference among the runs."""

    speed: float = 1.0
    memory: float = 1.0
    runs: int = 0
    spread: float = 0.0

    def around(self, estimate: Interval) -> Interval:
        """Return ``estimate`` corrected. With earlier runs, their spread determines its bounds."""
        if not self.runs:
            return estimate
        middle = estimate.expected * self.speed
        # A single run determines the middle, and hardly the width.
        width = max(NARROWEST, 1.3 * self.spread, 0.25 / self.runs)
        return Interval(low=middle / (1 + width), expected=middle, high=middle * (1 + width))


class Calibration:
    """Collects outcomes. Equal sets of up to ``REMEMBERED`` runs, in any order, give equal corrections."""

    def __init__(self, outcomes: Iterable[Outcome] = ()) -> None:
        self._known: dict[tuple[TrainMethod, str], deque[Outcome]] = defaultdict(
            lambda: deque(maxlen=REMEMBERED)
        )
        for outcome in outcomes:
            self.add(outcome)

    def learn(self, plan: TrainPlan | None, usage: Usage | None) -> None:
        """Remember a run that was planned and measured, and went as planned."""
        if plan is not None and usage is not None and usage.comparable:
            self.add(Outcome(plan, usage.tokens_per_second, usage.peak_bytes))

    def add(self, outcome: Outcome) -> None:
        """Remember a run. A run that took no time is ignored."""
        if outcome.tokens_per_second > 0 and outcome.plan.tokens_per_second.expected > 0:
            plan = outcome.plan
            self._known[plan.method, key(plan.device, plan.parameters)].append(outcome)

    def corrections(self, method: TrainMethod) -> dict[str, Correction]:
        """Return, by ``key``, the corrections from earlier runs of ``method``."""
        return {name: self._of(known) for (m, name), known in sorted(self._known.items()) if m is method}

    def _of(self, known: Iterable[Outcome]) -> Correction:
        known = list(known)
        speeds = sorted(math.log(o.tokens_per_second / _uncorrected_speed(o.plan)) for o in known)
        memories = sorted(math.log(o.peak_bytes / o.plan.memory.total) for o in known if o.peak_bytes)
        middle = sum(speeds) / len(speeds)
        spread = math.sqrt(sum((speed - middle) ** 2 for speed in speeds) / len(speeds))
        memory = sum(memories) / len(memories) if memories else 0.0
        return Correction(math.exp(middle), math.exp(memory), len(speeds), spread)


def key(device: str, parameters: int) -> str:
    """Return the key of comparable runs: the device, and the model's size to a factor of about three. A small
    model reaches another share of a device's peak than a large one."""
    return f"{device}/{round(2 * math.log10(parameters))}"


def _uncorrected_speed(plan: TrainPlan) -> float:
    return plan.tokens_per_second.expected / plan.speed_factor
