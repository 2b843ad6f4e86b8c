"""Do more answers break the form that the task asks for than did on the version's holdout and under the
version before? The test is ``rates.py``'s. Answers whose prompt, schema or limits the client replaced say
nothing of the model."""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import Rise

RISE = Rise(
    "format",
    weight=0.08,
    floor=0.05,
    action="retrain",
    unit="share of answers that are not valid",
    tolerated=0.02,
)


class Format:
    name = RISE.detector
    weight = RISE.weight
    family: Literal["format"] = "format"

    def open(self, opening: Opening) -> State:
        return RISE.open(opening, measured=opening.holdout)

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of != "completion" or item.format_valid is None or item.overrides:
            return
        RISE.see(state, not item.format_valid, user=item.user, completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return RISE.look(state, "the version's holdout and the healthy windows of the version before")
