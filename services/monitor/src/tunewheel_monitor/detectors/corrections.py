"""Do people correct a larger share of the answers that they rate than under the version before? The test is
``rates.py``'s, on votes (``ratings.py``). A correction is a trusted answer: what it teaches can be trained
on."""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors import ratings
from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import Rise

RISE = Rise(
    "corrections",
    weight=0.02,
    floor=0.05,
    action="retrain",
    unit="share of corrected answers",
    tolerated=0.02,
)


class Corrections:
    name = RISE.detector
    weight = RISE.weight
    family: Literal["feedback"] = "feedback"

    def open(self, opening: Opening) -> State:
        return RISE.open(opening) | {"voters": ratings.opened(opening)}

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of == "rating" and item.corrected is not None and ratings.counts(state["voters"], item):
            RISE.count(state, item.corrected, completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return RISE.look(state, "votes on the version before, while it was healthy")
