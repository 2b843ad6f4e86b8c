"""Do more requests fail than the error budget allows? All failures count but the client's own: an engine
that is away fails everybody. The test is ``rates.py``'s with a budget of ``BUDGET``; a total outage is seen
after a handful of requests, at the end of the window that holds them.
"""

from __future__ import annotations

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import State
from tunewheel_monitor.detectors.rates import Rise

BUDGET = 0.02


class Errors(Rise):
    name = "errors"
    weight = 0.015
    floor = 0.03
    action = "investigate"
    unit = "share of failed requests"
    budget = BUDGET
    per_user = 20

    def bad(self, state: State, item: InferenceScored) -> bool | None:
        if item.of != "completion" or item.outcome == "cancelled" or item.fault == "client":
            return None
        return item.outcome == "failed"

    def reference(self, state: State) -> str:
        return f"a budget of {BUDGET:.0%}"
