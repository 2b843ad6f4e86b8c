"""Do people correct a larger share of the answers that they rate than under the version before? The test is
``rates.py``'s, on votes (``ratings.py``). A correction is a trusted answer: what it teaches can be trained
on."""

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
