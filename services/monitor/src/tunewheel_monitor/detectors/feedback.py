"""Detects that people rate more answers down than under the previous version. The test is that of
``rates.py``, on votes (``ratings.py``). The baseline is not this version's own first window: a version that
is worse from its first day would never be detected."""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import State
from tunewheel_monitor.detectors.ratings import Votes


class Feedback(Votes):
    name = "feedback"
    weight = 0.1
    floor = 0.05
    action = "collect_labels"
    unit = "share of thumbs down"
    tolerated = 0.02
    margin = 1.64
    """About 5 %, one-sided: ratings are few. Of 10,000 simulated runs, .93 told of a rise from 10 % to 30 %
    within 200 ratings (.90 with 1 %), and 1,000 ratings at 10 % gave one false alarm."""

    def bad(self, state: State, item: InferenceScored) -> bool | None:
        return None if item.rating is None else item.rating == "down"
