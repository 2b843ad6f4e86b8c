"""Do more requests fail than the error budget allows? All failures count but the client's own: an engine
that is away fails everybody. The test is ``rates.py``'s with a budget of ``BUDGET``; a total outage is seen
after a handful of requests, at the end of the window that holds them.
"""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import Rise

BUDGET = 0.02
RISE = Rise(
    "errors",
    weight=0.015,
    floor=0.03,
    action="investigate",
    unit="share of failed requests",
    budget=BUDGET,
    per_user=20,
)


class Errors:
    name = RISE.detector
    weight = RISE.weight
    family: Literal["format"] = "format"

    def open(self, opening: Opening) -> State:
        return RISE.open(opening)

    def see(self, state: State, item: InferenceScored) -> None:
        if item.of != "completion" or item.outcome == "cancelled" or item.fault == "client":
            return
        RISE.see(state, item.outcome == "failed", user=item.user, completion_id=item.completion_id)

    def look(self, state: State) -> Finding | None:
        return RISE.look(state, f"a budget of {BUDGET:.0%}")
