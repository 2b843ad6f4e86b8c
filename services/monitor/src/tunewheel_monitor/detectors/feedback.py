"""Do more people turn their thumbs down than under the version before? The test is ``rates.py``'s, on votes
(``ratings.py``). The baseline is not this version's own first window: a version that is worse from its first
day would never be found out."""

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

    def bad(self, state: State, item: InferenceScored) -> bool | None:
        return None if item.rating is None else item.rating == "down"
