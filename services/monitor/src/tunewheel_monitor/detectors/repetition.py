"""Do more answers go round in circles than under the version before? An answer does where ``REPEATED`` of
its word 4-grams were there before. The test is ``rates.py``'s."""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import Rise

REPEATED = 0.2
RISE = Rise(
    "repetition",
    weight=0.04,
    floor=0.05,
    action="retrain",
    unit="share of answers that repeat themselves",
    tolerated=0.02,
)


class Repetition:
    name = RISE.detector
    weight = RISE.weight
    family: Literal["format"] = "format"

    def open(self, opening: Opening) -> State:
        return RISE.open(opening)

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of != "completion" or item.repetition is None or item.overrides:
            return
        RISE.see(state, item.repetition >= REPEATED, user=item.user, completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return RISE.look(state, "the healthy windows of the version before")
