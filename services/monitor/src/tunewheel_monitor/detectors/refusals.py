"""Detects that the model declines more often, by the task's own pattern, than the previous version. The test
is that of ``rates.py``."""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import State
from tunewheel_monitor.detectors.rates import Rise


class Refusals(Rise):
    name = "refusals"
    weight = 0.04
    floor = 0.05
    action = "update_documents"
    unit = "share of refusals"
    tolerated = 0.02

    def bad(self, state: State, item: InferenceScored) -> bool | None:
        return None if item.overrides else item.refusal
