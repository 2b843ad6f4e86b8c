"""Are answers longer or shorter than they lately were?

Lengths are sorted into half octaves of tokens (16 to 22, 23 to 31, ...); answers that end at their token
limit are a kind of their own. The standard is the last healthy windows', of this version or the one before
(``shares.py``).
"""

from __future__ import annotations

from math import floor, log2
from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.shares import Shift

SHIFT = Shift("length", weight=0.04, floor=0.25, action="investigate", unit="share of answers that moved")


class Length:
    name = SHIFT.detector
    weight = SHIFT.weight
    family: Literal["format"] = "format"

    def open(self, opening: Opening) -> State:
        return SHIFT.open(opening, inherit=True)

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of == "completion" and item.outcome == "answered" and not item.overrides:
            SHIFT.see(state, kind_of(item), user=item.user, completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return SHIFT.look(state)


def kind_of(item: InferenceScored) -> str:
    if item.truncated:
        return "truncated"
    return str(floor(2 * log2(item.completion_tokens))) if item.completion_tokens else "empty"
