"""Detects that people correct a larger share of the rated answers than under the previous version. The test
is that of ``rates.py``, on votes (``ratings.py``). Corrections are trusted answers, so the alarm suggests
training on them."""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import State
from tunewheel_monitor.detectors.ratings import Votes


class Corrections(Votes):
    name = "corrections"
    weight = 0.02
    floor = 0.05
    action = "retrain"
    unit = "share of corrected answers"
    tolerated = 0.02

    def bad(self, state: State, item: InferenceScored) -> bool | None:
        return item.corrected
