"""Do more answers bring terms that stand neither in the question nor in what was trained on, than under the
version before? The test is ``rates.py``'s. Most of what is invented stands in documents that the dataset does
not have yet."""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import Rise

RISE = Rise(
    "invented",
    weight=0.04,
    floor=0.08,
    action="update_documents",
    unit="share of answers with invented terms",
    tolerated=0.02,
)


class Invented:
    name = RISE.detector
    weight = RISE.weight
    family: Literal["format"] = "format"

    def open(self, opening: Opening) -> State:
        return RISE.open(opening)

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of != "completion" or item.invented is None or item.overrides:
            return
        RISE.see(state, item.invented > 0, user=item.user, completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return RISE.look(state, "the healthy windows of the version before")
