"""Does the answer's label differ from people's correction more often than under the version before? The
test is ``rates.py``'s, on votes (``ratings.py``)."""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors import ratings
from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import Rise

RISE = Rise(
    "agreement", weight=0.02, floor=0.1, action="retrain", unit="share of labels that people replaced"
)


class Agreement:
    name = RISE.detector
    weight = RISE.weight
    family: Literal["feedback"] = "feedback"

    def open(self, opening: Opening) -> State:
        return RISE.open(opening) | {"voters": ratings.opened(opening)}

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of == "rating" and item.agrees is not None and ratings.counts(state["voters"], item):
            RISE.count(state, not item.agrees, completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return RISE.look(state, "votes on the version before, while it was healthy")
