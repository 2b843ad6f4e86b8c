"""The base class of detectors that count bad items: tests whether their share rose above the baseline.

The baseline comes from the healthy windows of the previous version, or from the version's own evaluation.
Without either, the version's first items are the baseline. A baseline is a sample, so a rate is tolerated up
to the upper end of its interval (Wilson, "Probable inference", JASA 1927; one-sided, about 1 %). If a
detector has a budget, the budget replaces the baseline.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import sqrt

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors import evidence
from tunewheel_monitor.detectors.protocol import Action, Family, Finding, Opening, State
from tunewheel_monitor.detectors.votes import admitted

Z = 2.33
FEWEST = 100
"""The least number of items in a baseline."""
MOST = 2_000
"""About so many healthy items are kept for the next version's baseline; older ones fade."""
ENOUGH = 500
"""A baseline with fewer items is extended by the version's first healthy windows."""
HEALTHY = 0.2
"""The p-value from which a window counts as healthy."""
PROBABLY = 0.5
SHOWN = 10
"""How many bad items a finding names."""
SHOWN_TO_LABEL = 60
"""The same if people should answer them: a version needs at least twenty answers."""


class Rise(ABC):
    """A detector of a rate that must not rise. A subclass defines the bad items in ``bad``."""

    name: str
    family: Family = "format"
    weight: float
    floor: float
    """The least rise of the rate that raises an alarm."""
    action: Action
    unit: str
    standard = "the healthy windows of the version before"
    tolerated = 0.0
    """A rate that is always tolerated."""
    budget: float | None = None
    per_user = 5
    """Of a hundred items of a window, at most so many of one user count."""
    margin = Z
    """A rate within so many standard errors of the baseline is no evidence."""

    @abstractmethod
    def bad(self, state: State, item: InferenceScored) -> float | None:
        """Return whether ``item`` is bad, or the probability of that; None: this detector does not measure
        it."""

    @property
    def shown(self) -> int:
        return SHOWN_TO_LABEL if self.action == "collect_labels" else SHOWN

    def measured(self, opening: Opening) -> tuple[int, int]:
        """Return (bad, all) in the version's own evaluation. The previous version's baseline is used only if
        these are too few."""
        return 0, 0

    def open(self, opening: Opening) -> State:
        bad, total = self.measured(opening)
        if total < FEWEST:
            bad_before, total_before = inherited(opening.predecessor)
            bad, total = bad + bad_before, total + total_before
        return {
            "evidence": evidence.opened(opening, self.weight),
            "baseline": [bad, total],
            "healthy": [0.0, 0.0],
            "window": [0, 0],
            "stretch": [0, 0],
            "votes": {},
            "most": max(1, round(self.per_user * opening.drift.window / 100)),
            "ids": [],
        }

    def see(self, state: State, item: InferenceScored) -> bool | None:
        bad = self.bad(state, item)
        if bad is None or not self.admits(state, item):
            return None
        self.count(state, bad, completion_id=item.completion_id)
        return bad >= PROBABLY

    def admits(self, state: State, item: InferenceScored) -> bool:
        """Return whether a measured item counts: its user must not have reached the limit."""
        return admitted(state["votes"], item.user, state["most"])

    def count(self, state: State, bad: float, *, completion_id: str) -> None:
        baseline = state["baseline"]
        if self.budget is None and baseline[1] < FEWEST:
            baseline[0] += bad
            baseline[1] += 1
            return
        state["window"][0] += bad
        state["window"][1] += 1
        evidence.bet(state["evidence"], bad / self.limit(state))
        if bad >= PROBABLY:
            state["ids"] = [completion_id, *state["ids"][: self.shown - 1]]

    def limit(self, state: State) -> float:
        """Return the highest rate that is still no evidence of a change."""
        if self.budget is not None:
            return self.budget
        bad, total = state["baseline"]
        return max(upper(bad, total, self.margin), self.tolerated)

    def usual(self, state: State) -> float:
        bad, total = state["baseline"]
        return self.budget if self.budget is not None else max(bad / max(total, 1), self.tolerated)

    def reference(self, state: State) -> str:
        """Return the standard of the comparison, in words."""
        return f"{self.standard}: {self.usual(state):.1%}, by {state['baseline'][1]:.0f} items"

    def _remember(self, state: State, bad: float, seen: int) -> None:
        """Add a healthy window to the baseline of the next version, and to this version's baseline if it is
        small."""
        state["healthy"] = recalled(state["healthy"], bad, seen, MOST)
        baseline = state["baseline"]
        if baseline[1] < ENOUGH:
            state["baseline"] = [baseline[0] + bad, baseline[1] + seen]

    def look(self, state: State, floor: float | None = None) -> Finding | None:
        bad, seen = state["window"]
        p_value = evidence.p_value(state["evidence"])
        state["window"], state["votes"] = [0, 0], {}
        bad_lately, seen_lately = evidence.lengthen(state, bad, seen, p_value)
        usual, reference = self.usual(state), self.reference(state)
        if seen and p_value >= HEALTHY:
            self._remember(state, bad, seen)
        if not seen:
            return None  # earlier windows were reported at their own end
        rate = bad_lately / seen_lately
        return Finding(
            detector=self.name,
            statistic_name=self.unit,
            statistic=rate,
            usual=usual,
            items=seen,
            p_value=p_value,
            threshold=state["evidence"]["threshold"],
            effect=rate - usual,
            effect_unit=f"rise of the {self.unit}",
            floor=self.floor if floor is None else floor,
            reference=reference,
            action=self.action,
            completion_ids=tuple(state["ids"]),
        )


def inherited(predecessor: State | None) -> tuple[float, float]:
    """Return (bad, all) of the previous version: of its healthy windows or, if those are too few, of its
    baseline. Its bad windows must not become a standard."""
    if predecessor is None or "baseline" not in predecessor:
        return 0.0, 0.0
    healthy, baseline = predecessor["healthy"], predecessor["baseline"]
    bad, total = healthy if healthy[1] >= min(ENOUGH, baseline[1]) else baseline
    return bad, total


def recalled(before: list[float], bad: float, seen: int, memory: float) -> list[float]:
    """Return (bad, all) with a window's items added. Older items fade, so that about ``memory`` items
    count."""
    kept = memory / (memory + seen)
    return [round(kept * before[0] + bad, 3), round(kept * before[1] + seen, 3)]


def upper(bad: float, total: float, z: float = Z) -> float:
    """Return the upper end of Wilson's interval of a rate, ``z`` standard errors above it."""
    rate = bad / total
    middle = rate + z * z / (2 * total)
    width = z * sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return (middle + width) / (1 + z * z / total)
