"""Does the model sort into other labels than it lately did? Beside a calm ``mixture`` that is the model's
doing.

The standard is the last healthy windows', of this version or the one before (``shares.py``).
"""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import State
from tunewheel_monitor.detectors.shares import Shift

LONGEST = 60
"""Characters of a label that tell it from others."""


class Labels(Shift):
    name = "labels"

    def kind(self, state: State, item: InferenceScored) -> str | None:
        return None if item.label is None or item.overrides else item.label[:LONGEST]
