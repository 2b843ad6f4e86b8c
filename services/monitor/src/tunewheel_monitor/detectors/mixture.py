"""Detects that the mixture of known questions moved. Training does not change the mixture, so the alarm asks
a person to investigate.

The training set's mixture is no standard, because the set was curated. The standard is the last healthy
windows (``shares.py``), counted by the cells of the reference. It follows slow changes, such as seasons.
Novel questions lie in no cell; ``novelty.py`` watches them.
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
