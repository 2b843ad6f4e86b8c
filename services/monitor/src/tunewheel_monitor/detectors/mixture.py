"""Has the mixture of known questions moved from what it was lately? Retraining mends no mixture by itself,
so the alarm asks somebody to look.

The mixture of the training set is no standard: it was curated. The standard is the last healthy windows'
(``shares.py``), by the cells of the reference in which questions lie. It follows slow changes, such as
seasons. Novel questions lie in no cell; they are ``novelty``'s.
"""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Family, Opening, State
from tunewheel_monitor.detectors.shares import Shift


class Mixture(Shift):
    name = "mixture"
    family: Family = "input"
    unit = "share of questions that moved"
    inherits = False

    def open(self, opening: Opening) -> State:
        return super().open(opening) | {"dataset_id": opening.dataset_id}

    def kind(self, state: State, item: InferenceScored) -> str | None:
        known = item.novel is False and item.dataset_id == state["dataset_id"]
        return str(item.cell) if known else None
