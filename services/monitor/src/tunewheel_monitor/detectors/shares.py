"""The base class of detectors of a mixture (of cells, labels or lengths): tests whether it moved from the
last healthy windows.

Before each window, the kinds whose share rose recently are chosen. In the window, the total share of these
kinds is tested against their healthy share plus a floor. The choice depends only on earlier windows, so the
test stays valid although it looks where a change seems to be (predictable bets: Waudby-Smith and Ramdas, JRSS
B 2024). The floor allows for the sampling error of the healthy shares and for changes that are not worth an
alarm.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.detectors import evidence
from tunewheel_monitor.detectors.protocol import Action, Family, Finding, Opening, State
from tunewheel_monitor.detectors.votes import admitted

FEWEST = 300
"""The least number of items in the standard."""
STANDARD = 700.0
"""The standard holds about so many healthy items. Older ones fade, so that it follows the seasons."""
RECENT = 100.0
"""About so many items before a window decide, together with the window, which shares rise."""
HEALTHY = 0.2
"""The p-value from which a window counts as healthy."""
STAYS = 30
"""After so many windows a mixture that does not return becomes the new standard, and the alarm ends."""
PER_USER = 3
"""Of a hundred items of a window, at most so many of one user count."""
KINDS = 200
"""The most kinds that are remembered. The rarest are dropped first."""
OTHER = "(other)"
"""The kind of all further kinds of a window, after its first ``KINDS``."""
SHOWN = 10
Counts = dict[str, float]


class Shift(ABC):
    """A detector of a mixture that should not change. A subclass defines the kinds in ``kind``."""

    name: str
    family: Family = "format"
    weight = 0.04
    floor = 0.25
    """The least share of items that must change its kind to raise an alarm."""
    action: Action = "investigate"
    unit = "share of answers that moved"
    inherits = True
    """Whether the kinds mean the same in every version, so that the previous version's standard is kept."""

    @abstractmethod
    def kind(self, state: State, item: InferenceScored) -> str | None:
        """Return the kind of ``item``; None: this detector does not measure it."""

    def open(self, opening: Opening) -> State:
        before = (opening.predecessor or {}) if self.inherits else {}
        return {
            "evidence": evidence.opened(opening, self.weight),
            "standard": dict(before.get("standard", {})),
            "window": {},
            "recent": {},
            "rising": [],
            "limit": 1.0,
            "unhealthy": 0,
            "votes": {},
            "most": max(1, round(PER_USER * opening.drift.window / 100)),
            "ids": [],
        }

    def see(self, state: State, item: InferenceScored) -> None:
        kind = self.kind(state, item)
        if kind is None or not admitted(state["votes"], item.user, state["most"]):
            return
        if kind not in state["window"] and len(state["window"]) >= KINDS:
            kind = OTHER
        state["window"][kind] = state["window"].get(kind, 0) + 1
        if not state["rising"]:
            return
        rose = kind in state["rising"]
        evidence.bet(state["evidence"], rose / state["limit"])
        if rose:
            state["ids"] = [item.completion_id, *state["ids"][: SHOWN - 1]]

    def look(self, state: State, floor: float | None = None) -> Finding | None:
        window, standard = state["window"], state["standard"]
        floor = self.floor if floor is None else floor
        state["window"], state["votes"] = {}, {}
        if not window:
            return None
        p_value = evidence.p_value(state["evidence"])
        state["recent"] = faded(state["recent"], window, RECENT)
        enough = sum(standard.values()) >= FEWEST
        if p_value >= HEALTHY or not enough:
            state["standard"], state["unhealthy"] = faded(standard, window, STANDARD), 0
        else:
            self._endure(state)
        self._choose(state, floor)
        items = sum(window.values())
        return self._finding(state, standard, p_value, items=items, floor=floor) if enough else None

    def _endure(self, state: State) -> None:
        """Count a window that is not healthy. After ``STAYS`` of them the mixture becomes the standard."""
        state["unhealthy"] += 1
        if state["unhealthy"] >= STAYS:
            total = sum(state["recent"].values())
            scale = max(1.0, FEWEST / total)
            state["standard"] = {kind: count * scale for kind, count in state["recent"].items()}
            state["evidence"]["wealth"] = [1.0] * len(evidence.BETS)
            state["unhealthy"] = 0

    def _choose(self, state: State, floor: float) -> None:
        """Choose the kinds whose share rose, for the next window."""
        if sum(state["standard"].values()) < FEWEST:
            return
        usual, now = shares(state["standard"]), shares(state["recent"])
        state["rising"] = [kind for kind, share in now.items() if share > usual.get(kind, 0.0)]
        state["limit"] = min(0.95, sum(usual.get(kind, 0.0) for kind in state["rising"]) + floor)

    def _finding(
        self, state: State, standard: Counts, p_value: float, *, items: int, floor: float
    ) -> Finding:
        usual, now = shares(standard), shares(state["recent"])
        moved = sum(max(0.0, share - usual.get(kind, 0.0)) for kind, share in now.items())
        return Finding(
            detector=self.name,
            statistic_name="total variation",
            statistic=moved,
            usual=0.0,
            items=items,
            p_value=p_value,
            threshold=state["evidence"]["threshold"],
            effect=moved,
            effect_unit=self.unit,
            floor=floor,
            reference=f"the last healthy windows, {sum(standard.values()):.0f} items",
            action=self.action,
            completion_ids=tuple(state["ids"]),
        )


def faded(before: Counts, window: Counts, memory: float) -> Counts:
    """Return ``before`` with a window's counts added. Older items fade, so that about ``memory`` items
    count."""
    kept = memory / (memory + sum(window.values()))
    counts = {kind: round(count * kept, 3) for kind, count in before.items()}
    for kind, count in window.items():
        counts[kind] = counts.get(kind, 0.0) + count
    most = sorted(counts, key=lambda kind: (-counts[kind], kind))[:KINDS]
    return {kind: counts[kind] for kind in most if counts[kind] >= 0.01}


def shares(counts: Counts) -> dict[str, float]:
    total = sum(counts.values())
    return {kind: count / total for kind, count in counts.items()} if total else {}
