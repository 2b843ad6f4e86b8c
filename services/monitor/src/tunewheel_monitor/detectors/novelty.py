"""Do people ask what the dataset does not cover, more often than its own questions would make one think?

Every question scores a point for each of four distances that it exceeds: those which 80, 90, 95 and 98 in
100 of the dataset's own questions keep from the nearest of the others (leave one out; ``coverage.py``). The
score is compared with the mean score of the reference's own questions *in the same region*, plus a floor: a
mixture that prefers a region where questions are diverse is no novelty. The ratio is an e-value;
``evidence.py`` gathers it.

The scores' ranks among the reference's are conformal p-values (Vovk, Gammerman and Shafer, "Algorithmic
learning in a random world", 2005), the points a step-shaped calibrator of them (Vovk and Wang, "E-values:
calibration, combination and applications", Annals of Statistics 2021).
"""

from __future__ import annotations

from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.coverage import LEVELS, NOVEL_QUANTILE
from tunewheel_monitor.detectors import evidence
from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.votes import admitted

FLOOR = 0.1
"""Points of the mean score that are no evidence: what a sample of questions leaves open about a region's
own."""
EFFECT = 0.015
"""Rise of the share of novel questions that is worth an alarm."""
PER_USER = 3
"""Questions of one user in a hundred that count."""


class Novelty:
    name = "novelty"
    family: Literal["input"] = "input"
    weight = 0.3

    def open(self, opening: Opening) -> State:
        facts = opening.coverage
        if facts is None:
            return {}
        return {
            "evidence": evidence.opened(opening.drift, self.weight),
            "dataset_id": opening.dataset_id,
            "texts": facts.texts,
            "usual": facts.novel_rate,
            "levels": list(facts.levels),
            "expected": [round(score, 4) for score in facts.cell_scores],
            "window": [0, 0],
            "stretch": [0, 0],
            "votes": {},
            "most": max(1, round(PER_USER * opening.drift.window / 100)),
            "farthest": [],
        }

    def see(self, state: State, item: InferenceScored) -> None:
        if not state or item.of != "completion" or item.dataset_id != state["dataset_id"]:
            return
        if item.novelty is None or item.cell is None or item.cell >= len(state["expected"]):
            return
        if not admitted(state["votes"], item.user, state["most"]):
            return
        levels, novelty = state["levels"], item.novelty
        points = sum(novelty > level for level in levels)
        evidence.bet(state["evidence"], points / (state["expected"][item.cell] + FLOOR))
        state["window"][0] += novelty > levels[LEVELS.index(NOVEL_QUANTILE)]
        state["window"][1] += 1
        if points == len(levels):
            farthest = [*state["farthest"], [round(novelty, 4), item.completion_id]]
            state["farthest"] = sorted(farthest, reverse=True)[:10]

    def look(self, state: State) -> Finding | None:
        if not state or not state["window"][1]:
            return None
        p_value = evidence.close(state["evidence"])
        novel, seen = evidence.lengthen(state, *state["window"], p_value)
        shown = tuple(completion_id for _, completion_id in state["farthest"])
        state["window"], state["votes"] = [0, 0], {}
        if p_value >= evidence.CALM:
            state["farthest"] = []
        effect = novel / seen - state["usual"]
        threshold = state["evidence"]["threshold"]
        return Finding(
            detector=self.name,
            drifted=p_value < threshold and effect >= EFFECT,
            statistic_name="share of novel questions",
            statistic=novel / seen,
            p_value=p_value,
            threshold=threshold,
            effect=effect,
            effect_unit="rise of the share of novel questions",
            reference=f"{state['texts']} questions of the dataset, of which {state['usual']:.1%} are novel",
            action="collect_labels",
            completion_ids=shown,
        )
