"""Does the model decline more often, by the task's own pattern, than the version before? The test is
``rates.py``'s."""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import Rise

RISE = Rise(
    "refusals", weight=0.04, floor=0.05, action="update_documents", unit="share of refusals", tolerated=0.02
)


class Refusals:
    name = RISE.detector
    weight = RISE.weight
    family: Literal["format"] = "format"

    def open(self, opening: Opening) -> State:
        return RISE.open(opening)

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of != "completion" or item.refusal is None or item.overrides:
            return
        RISE.see(state, item.refusal, user=item.user, completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return RISE.look(state, "the healthy windows of the version before")
