"""Detects that more answers are withheld for want of confidence than before, where the project abstains. The
test is that of ``rates.py``.

The standard is the version's own first answers: another version has another threshold. Withheld questions
that are about something new are seen by ``novelty``, so this alarm suggests to look.
"""

from __future__ import annotations

from dataclasses import replace

from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import InferenceCompleted

from tunewheel_monitor.detectors.protocol import Opening, State
from tunewheel_monitor.detectors.rates import Rise


class Abstentions(Rise):
    name = "abstentions"
    weight = 0.01
    floor = 0.1
    action = "investigate"
    unit = "share of withheld answers"
    standard = "the version's first answers"

    def measure(self, data: InferenceCompleted) -> float | None:
        if data.abstained:
            return 1.0
        return None if data.certainty is None else 0.0

    def open(self, opening: Opening) -> State:
        return super().open(replace(opening, predecessor=None))

    def bad(self, state: State, item: InferenceScored) -> float | None:
        return item.measures.get(self.name)
