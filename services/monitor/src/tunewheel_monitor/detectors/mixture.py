"""Detects that the mixture of known questions moved. Training does not change the mixture, so the alarm asks
a person to investigate.

The training set's mixture is no standard, because the set was curated. The standard is the last healthy
windows (``shares.py``), counted by the cells of the reference. It follows slow changes, such as seasons.
Novel questions lie in no cell; ``novelty.py`` watches them. To it the same text again is no evidence. So each
novel text is a kind of its own here, which shows when many suddenly ask the same, as in an outage.
"""

from __future__ import annotations

import zlib

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Family, Opening, State
from tunewheel_monitor.detectors.shares import KINDS, Shift


class Mixture(Shift):
    name = "mixture"
    family: Family = "input"
    unit = "share of questions that moved"
    inherits = False

    def open(self, opening: Opening) -> State:
        return super().open(opening) | {"dataset_id": opening.dataset_id}

    def kind(self, state: State, item: InferenceScored) -> str | None:
        if item.novel is None or item.dataset_id != state["dataset_id"]:
            return None
        if not item.novel:
            return str(item.cell)
        text = f"text {zlib.crc32((item.vector or '').encode())}"
        has_room = len(state["window"]) < KINDS // 2  # texts must not crowd out the cells
        return text if item.vector and (has_room or text in state["window"]) else None
