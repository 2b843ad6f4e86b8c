"""Do more answers break the form that the task asks for than did on the version's holdout and under the
version before? The test is ``rates.py``'s. Answers whose prompt, schema or limits the client replaced say
nothing of the model."""

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
