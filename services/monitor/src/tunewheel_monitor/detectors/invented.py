"""Detects that more answers contain terms that are neither in the question nor in the training rows than
under the previous version. The test is that of ``rates.py``. Most such terms are in documents that the
dataset lacks."""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import State
from tunewheel_monitor.detectors.rates import Rise


class Invented(Rise):
    name = "invented"
    weight = 0.04
    floor = 0.08
    action = "update_documents"
    unit = "share of answers with invented terms"
    tolerated = 0.02

    def bad(self, state: State, item: InferenceScored) -> bool | None:
        return None if item.invented is None or item.overrides else item.invented > 0
