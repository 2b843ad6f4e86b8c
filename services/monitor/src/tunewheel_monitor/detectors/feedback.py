"""Do more people turn their thumbs down than under the version before? The test is ``rates.py``'s, on votes
(``ratings.py``). The baseline is not this version's own first window: a version that is worse from its first
day would never be found out."""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors import ratings
from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import Rise

RISE = Rise(
    "feedback", weight=0.06, floor=0.05, action="collect_labels", unit="share of thumbs down", tolerated=0.02
)


class Feedback:
    name = RISE.detector
    weight = RISE.weight
    family: Literal["feedback"] = "feedback"

    def open(self, opening: Opening) -> State:
        return RISE.open(opening) | {"voters": ratings.opened(opening)}

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of == "rating" and item.rating is not None and ratings.counts(state["voters"], item):
            RISE.count(state, item.rating == "down", completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return RISE.look(state, "votes on the version before, while it was healthy")
