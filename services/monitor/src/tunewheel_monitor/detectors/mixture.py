"""Has the mixture of known questions moved from what it was lately? Retraining mends no mixture by itself,
so the alarm asks somebody to look.

The mixture of the training set is no standard: it was curated. The standard is the last healthy windows'
(``shares.py``), by the cells of the reference in which questions lie. It follows slow changes, such as
seasons. Novel questions lie in no cell; they are ``novelty``'s.
"""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.shares import Shift

SHIFT = Shift("mixture", weight=0.04, floor=0.25, action="investigate", unit="share of questions that moved")


class Mixture:
    name = SHIFT.detector
    weight = SHIFT.weight
    family: Literal["input"] = "input"

    def open(self, opening: Opening) -> State:
        return SHIFT.open(opening, inherit=False) | {"dataset_id": opening.dataset_id}

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of != "completion" or item.dataset_id != state["dataset_id"] or item.novel is not False:
            return
        SHIFT.see(state, str(item.cell), user=item.user, completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return SHIFT.look(state)
