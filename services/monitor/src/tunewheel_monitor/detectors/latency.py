"""Detects that more answers are slow than under the previous version, or at the beginning of this one.

An answer is slow if it takes more than ``SLOW`` times the baseline's 95th percentile, which comes from a
histogram of quarter octaves. The test is that of ``rates.py`` with the budget ``BUDGET`` of slow answers.
"""

from __future__ import annotations

from math import floor, log2

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import FEWEST, Rise

SLOW = 1.25
BUDGET = 0.1
STEPS = 4
"""How many bins the histogram has per octave."""
SHORTEST = 0.001
MOST = 5_000
"""The histogram holds about so many answers; older ones fade."""


class Latency(Rise):
    name = "latency"
    weight = 0.015
    floor = 0.05
    action = "investigate"
    unit = "share of slow answers"
    budget = BUDGET
    per_user = 20

    def open(self, opening: Opening) -> State:
        histogram = dict((opening.predecessor or {}).get("histogram", {}))
        return super().open(opening) | {"histogram": histogram, "fresh": {}, "limit": slow_from(histogram)}

    def bad(self, state: State, item: InferenceScored) -> bool | None:
        if state["limit"] is None or item.latency_seconds is None or item.outcome != "answered":
            return None
        return item.latency_seconds > state["limit"]

    def see(self, state: State, item: InferenceScored) -> bool | None:
        slow = super().see(state, item)
        if item.latency_seconds is None or item.outcome != "answered":
            return slow
        step = str(floor(STEPS * log2(max(item.latency_seconds, SHORTEST))))
        bins = state["histogram"] if state["limit"] is None else state["fresh"]
        bins[step] = bins.get(step, 0) + 1
        if state["limit"] is None:
            state["limit"] = slow_from(bins)
        return slow

    def look(self, state: State, floor: float | None = None) -> Finding | None:
        finding = super().look(state, floor)
        if finding is not None and finding.effect <= 0:
            remember(state)
        state["fresh"] = {}
        return finding

    def reference(self, state: State) -> str:
        return f"answers slower than {state['limit'] or 0:.2f} s"


def slow_from(histogram: State) -> float | None:
    """Return the seconds from which an answer is slow; None: too few answers were seen."""
    total = sum(histogram.values())
    if total < FEWEST:
        return None
    left = 0.05 * total
    for step in sorted(map(int, histogram), reverse=True):
        left -= histogram[str(step)]
        if left < 0:
            return SLOW * 2.0 ** ((step + 1) / STEPS)
    raise AssertionError("unreachable: the histogram has more than a twentieth of itself")


def remember(state: State) -> None:
    """Add a healthy window to the histogram for the next version. This version's limit stays."""
    histogram = state["histogram"]
    for step, count in state["fresh"].items():
        histogram[step] = histogram.get(step, 0) + count
    total = sum(histogram.values())
    if total > MOST:
        state["histogram"] = {step: round(count * MOST / total, 2) for step, count in histogram.items()}
