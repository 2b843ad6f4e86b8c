"""Do more answers bring terms that stand neither in the question nor in what was trained on, than under the
version before? The test is ``rates.py``'s. Most of what is invented stands in documents that the dataset does
not have yet."""

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
