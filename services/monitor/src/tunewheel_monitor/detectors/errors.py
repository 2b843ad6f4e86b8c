"""Detects that more requests fail than the error budget allows. All failures count except those that the
client caused. The test is that of ``rates.py`` with the budget ``BUDGET``. A total outage needs only a
handful of requests, and is detected at the end of their window.
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
