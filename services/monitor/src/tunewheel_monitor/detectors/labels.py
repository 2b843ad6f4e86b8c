"""Does the model sort into other labels than it lately did? Beside a calm ``mixture`` that is the model's
doing.

The standard is the last healthy windows', of this version or the one before (``shares.py``).
"""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.shares import Shift

LONGEST = 60
"""Characters of a label that tell it from others."""
SHIFT = Shift("labels", weight=0.04, floor=0.25, action="investigate", unit="share of answers that moved")


class Labels:
    name = SHIFT.detector
    weight = SHIFT.weight
    family: Literal["format"] = "format"

    def open(self, opening: Opening) -> State:
        return SHIFT.open(opening, inherit=True)

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of == "completion" and item.label is not None and not item.overrides:
            SHIFT.see(state, item.label[:LONGEST], user=item.user, completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return SHIFT.look(state)
