"""Detects that more answers break the task's form than on the version's holdout or under the previous
version. The test is that of ``rates.py``. Answers for which the client replaced the prompt, schema or limits
do not count."""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Opening, State
from tunewheel_monitor.detectors.rates import Rise


class Format(Rise):
    name = "format"
    weight = 0.08
    floor = 0.05
    action = "retrain"
    unit = "share of answers that are not valid"
    standard = "the version's holdout and the healthy windows of the version before"
    tolerated = 0.02

    def measured(self, opening: Opening) -> tuple[int, int]:
        return opening.holdout or (0, 0)

    def bad(self, state: State, item: InferenceScored) -> bool | None:
        return None if item.format_valid is None or item.overrides else not item.format_valid
