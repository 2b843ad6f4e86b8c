"""Detects that the mixture of the model's labels moved. If the ``mixture`` of questions did not move, the
model is the cause.

The standard is the last healthy windows of this version or the previous one (``shares.py``).
"""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import State
from tunewheel_monitor.detectors.shares import Shift

LONGEST = 60
"""Labels are told apart by so many characters."""


class Labels(Shift):
    name = "labels"

    def kind(self, state: State, item: InferenceScored) -> str | None:
        if item.of != "completion" or item.label is None or item.overrides:
            return None
        return item.label[:LONGEST]
