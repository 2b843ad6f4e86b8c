"""Detects that more answers repeat themselves than under the previous version. An answer does so if at least
the share ``REPEATED`` of its word 4-grams occur earlier in it. The test is that of ``rates.py``."""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import State
from tunewheel_monitor.detectors.rates import Rise

REPEATED = 0.2


class Repetition(Rise):
    name = "repetition"
    weight = 0.04
    floor = 0.05
    action = "retrain"
    unit = "share of answers that repeat themselves"
    tolerated = 0.02

    def bad(self, state: State, item: InferenceScored) -> bool | None:
        return None if item.repetition is None or item.overrides else item.repetition >= REPEATED
