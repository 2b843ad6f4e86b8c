"""What detectors say of a stream, as the monitor lets them look at it."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from questions import WINDOW
from scipy.stats import binomtest
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.formats.drift_spec import DriftSpec
from tunewheel_monitor.detectors import Detector, Opening, State
from tunewheel_monitor.figures import NEAR

DRIFT = DriftSpec(window=WINDOW)
ENDS_AFTER = 3
"""Windows without drift after which the monitor ends an alarm."""


def first_alarms(
    detectors: Sequence[Detector], begun: Opening, items: Iterable[InferenceScored]
) -> dict[str, int]:
    """Return how many answers, or ratings, each detector had seen at its first alarm."""
    states = {detector.name: detector.open(begun) for detector in detectors}
    return alarms_in(detectors, states, items)


def alarms_in(
    detectors: Sequence[Detector],
    states: dict[str, State],
    items: Iterable[InferenceScored],
    counts: dict[str, int] | None = None,
    near: dict[str, int] | None = None,
) -> dict[str, int]:
    """Let the detectors see what comes and look as the monitor does: at windows of answers, those of ratings
    at windows of ratings. ``counts`` is told how many alarms each began: an alarm ends after ``ENDS_AFTER``
    windows without drift, as in the monitor, and another may begin. ``near`` is told in how many windows each
    was near an alarm."""
    alarmed: dict[str, int] = {}
    quiet: dict[str, int] = defaultdict(lambda: ENDS_AFTER)
    seen = {"completion": 0, "rating": 0}
    for item in items:
        seen[item.of] += 1
        for detector in detectors:
            detector.see(states[detector.name], item)
        if seen[item.of] % WINDOW:
            continue
        for detector in detectors:
            if (detector.family == "feedback") is (item.of == "rating"):
                finding = detector.look(states[detector.name])
                if near is not None and finding is not None and finding.p_value <= NEAR * finding.threshold:
                    near[detector.name] = near.get(detector.name, 0) + 1
                if finding is None or not finding.drifted:
                    quiet[detector.name] += 1
                    continue
                alarmed.setdefault(detector.name, seen[item.of])
                if counts is not None and quiet[detector.name] >= ENDS_AFTER:
                    counts[detector.name] = counts.get(detector.name, 0) + 1
                quiet[detector.name] = 0
    return alarmed


def told(first: Sequence[dict[str, int]], detectors: Sequence[Detector]) -> dict[str, Any]:
    """Return power with its exact interval of 95 % and median delay, by detector and of all together."""
    by_name = {d.name: [alarmed[d.name] for alarmed in first if d.name in alarmed] for d in detectors}
    by_name["any"] = [min(alarmed.values()) for alarmed in first if alarmed]
    return {
        name: {"power": round(len(ends) / len(first), 3), "interval": interval(len(ends), len(first))}
        | ({"prompts": int(np.median(ends))} if ends else {})
        for name, ends in by_name.items()
    }


def interval(count: int, of: int) -> list[float]:
    """Return the ends of the exact 95 % interval of a share (Clopper and Pearson, 1934)."""
    ends = binomtest(count, of).proportion_ci(method="exact")
    return [round(float(ends.low), 2), round(float(ends.high), 2)]


def summary(cases: Sequence[bool]) -> dict[str, Any]:
    return {"alarms": len(cases), "accuracy was worse": round(float(np.mean(cases)), 3)}


def collect(harm: dict[str, list[bool]], alarmed: Iterable[tuple[dict[str, int], bool]]) -> None:
    """Note for each alarm whether answers were worse."""
    for names, was_worse in alarmed:
        for name in names:
            harm[name].append(was_worse)


def summed(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = defaultdict(int)
    for one in counts:
        for name, count in one.items():
            total[name] += count
    return dict(total)


def say(name: str, figures: Any) -> None:
    print(name, json.dumps(figures), file=sys.stderr, flush=True)
