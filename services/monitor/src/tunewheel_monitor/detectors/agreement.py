"""Detects that the answer's label differs from people's correction more often than under the previous
version. The test is that of ``rates.py``, on votes (``ratings.py``)."""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import State
from tunewheel_monitor.detectors.ratings import Votes


class Agreement(Votes):
    name = "agreement"
    weight = 0.02
    floor = 0.1
    action = "retrain"
    unit = "share of labels that people replaced"

    def bad(self, state: State, item: InferenceScored) -> bool | None:
        return None if item.agrees is None else not item.agrees
