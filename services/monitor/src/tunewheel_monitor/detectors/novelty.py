"""Detects that people ask more often about things that the dataset does not cover.

Every question gets points by its novelty: few if most of the dataset's own questions lie as far from the
others (leave one out), many if hardly any does (``coverage.py``). The points are compared with the usual
points *in the same region*: more traffic in a region where questions are diverse is no novelty. The usual
points are estimated from the reference's own questions in the region and, increasingly, from production's
healthy windows. The ratio is an e-value, which ``evidence.py`` gathers.

A dataset that holds rewordings of its own questions makes these distances too small. Such a dataset shows by
its pairs of questions (``coverage.py``). Until 500 questions were asked, only a rise beyond what rewordings
explain is evidence. Then, if the 500 lie farther than the dataset says, their distances are the standard.

Each region's usual points have a standard error. Errors of many regions cancel out. So the margin is the
standard error of the mean over the regions with recent traffic: small if traffic is spread, larger if few
regions have most of it.

The ranks among the reference's distances are conformal p-values (Vovk, Gammerman and Shafer, "Algorithmic
learning in a random world", 2005). The points are a step-shaped calibrator of them (Vovk and Wang, "E-values:
calibration, combination and applications", Annals of Statistics 2021).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import sqrt
from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.coverage import LEVELS, NOVEL_QUANTILE, ODD, POINTS, CoverageFacts
from tunewheel_monitor.detectors import evidence, picking
from tunewheel_monitor.detectors.documents import CALIBRATION, SPREAD
from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import recalled
from tunewheel_monitor.detectors.votes import admitted

SHRINKAGE = 20.0
"""The usual points of a region are shrunk towards those of the whole reference, as if so many more questions
had been seen there."""
MARGIN = 1.0
"""A mean within so many standard errors of the usual mean, in the current mixture of regions, is no
evidence."""
RECENT = 400.0
"""The current mixture and the size of a change are taken from about so many recent questions; older ones
fade."""
HEALTHY = 0.005
"""The p-value from which a window counts as healthy. It is low, so that a region that becomes popular is
learnt soon."""
LAG = 2
"""A healthy window changes the usual points only after so many windows. A drift is noticed before that."""
MEMORY = 4_000.0
"""The usual points are taken from at most about so many production questions; older ones fade."""
PER_USER = 3
"""Of a hundred questions, at most so many of one user count."""
PAIRS = 0.08
"""From this share of questions in pairs on, the dataset's distances may be too small. It holds for 1,000
questions; with n questions, pairs are more frequent by the fifth root of n / 1,000. Measured at 1,000: .02 to
.04 in dolly's questions and IT tickets, .05 to .08 in banking77, .09 in nlupp; in banking77 with rewordings
of a quarter .07 to .17, of half .08 to .23, of all .11 to .33."""
DOUBT = 8.0
"""The most by which rewordings raise the points of known questions, for each share of pairs beyond the usual
one. Measured with rewordings of a quarter, half and all questions."""
SPARE = 0.025
"""How far ``PAIRS`` lies above the pairs of raw questions."""
BURST = (2, 100)
"""Of a hundred questions, at most ``PER_USER`` * (2 + 100 * recent share) of one region are evidence of a
rise: six, and three times as many as lately. So a burst of known questions raises no alarm in a region whose
usual points are poorly known."""
_NOVEL = LEVELS.index(NOVEL_QUANTILE)


class Novelty:
    name = "novelty"
    family: Literal["input"] = "input"
    weight = 0.3
    floor = 0.015
    """The least rise of the share of novel questions that raises an alarm."""

    def open(self, opening: Opening) -> State:
        facts = opening.coverage
        if facts is None:
            return {}
        doubt = doubt_of(facts)
        return {
            "evidence": evidence.opened(opening, self.weight),
            "dataset_id": opening.dataset_id,
            "texts": facts.texts,
            "usual": facts.novel_rate,
            "levels": list(facts.levels),
            "mean": facts.mean_points,
            "spread": facts.spread,
            "sums": [round(points, 3) for points in facts.cell_points],
            "counts": [float(count) for count in facts.cell_counts],
            "lately": {},
            "waiting": [],
            "window": [0, 0],
            "recent": [0.0, 0.0],
            "mixture": [RECENT * share for share in facts.cell_shares],
            "margin": margin(facts.cell_shares, facts.cell_counts, facts.spread),
            "sample": None if doubt == 1.0 else [],
            "doubt": doubt,
            "of": "the dataset",
            "votes": {},
            "most": max(1, round(PER_USER * opening.drift.window / 100)),
            "asking": picking.fresh(),
        }

    def see(self, state: State, item: InferenceScored) -> bool | None:
        if "mixture" not in state or item.of != "completion" or item.dataset_id != state["dataset_id"]:
            return None
        if item.novelty is None or item.cell is None or item.cell >= len(state["counts"]):
            return None
        if not admitted(state["votes"], item.user, state["most"]):
            return None
        if state.get("sample") is not None:  # states of earlier releases have none
            calibrate(state, item.cell, item.novelty)
        level = bisect_left(state["levels"], item.novelty)
        points, cell = POINTS[level], item.cell
        lately = state["lately"].setdefault(str(cell), [0.0, 0])
        lately[0], lately[1] = round(lately[0] + points, 3), lately[1] + 1
        e_value = points / (usual(state, cell) * state.get("doubt", 1.0))
        evidence.bet(state["evidence"], min(1.0, e_value) if lately[1] > allowed(state, cell) else e_value)
        is_novel = level > _NOVEL
        state["window"][0] += is_novel
        state["window"][1] += 1
        asking = state.setdefault("asking", picking.fresh())  # states of earlier releases have none
        asking["seen"] += 1
        if level > LEVELS.index(ODD) and item.vector is not None:
            picking.note(asking, item.completion_id, item.vector)
        return is_novel

    def look(self, state: State, floor: float | None = None) -> Finding | None:
        if "mixture" not in state or not state["window"][1]:
            return None
        p_value, (novel_now, items) = evidence.p_value(state["evidence"]), state["window"]
        novel, seen = state["recent"] = recalled(state["recent"], novel_now, items, RECENT)
        state["window"], state["votes"] = [0, 0], {}
        learn(state, healthy=p_value >= HEALTHY and state.get("sample") is None)
        state["margin"] = margin(state["mixture"], state["counts"], state["spread"])
        if p_value >= evidence.CALM:
            state["asking"] = picking.fresh()
        return Finding(
            detector=self.name,
            statistic_name="share of novel questions",
            statistic=novel / seen,
            usual=state["usual"],
            items=items,
            p_value=p_value,
            threshold=state["evidence"]["threshold"],
            effect=novel / seen - state["usual"],
            effect_unit="rise of the share of novel questions",
            floor=self.floor if floor is None else floor,
            reference=f"{state['texts']} questions of {state.get('of', 'the dataset')}, "
            f"of which {state['usual']:.1%} are novel",
            action="collect_labels",
            asking=state.get("asking"),
        )


def doubt_of(facts: CoverageFacts) -> float:
    """Return the factor by which the dataset's own rewordings may raise the points of known questions; 1: its
    pairs are as rare as those of raw questions."""
    natural = PAIRS * (facts.texts / 1_000) ** 0.2
    return 1.0 if facts.pairs <= natural else 1.0 + DOUBT * (facts.pairs - natural + SPARE)


def usual(state: State, cell: int) -> float:
    """Return the mean points of this region's questions up to which there is no evidence."""
    known = state["counts"][cell] + SHRINKAGE
    mean = (state["sums"][cell] + SHRINKAGE * state["mean"]) / known
    return mean * (1 + state["margin"])


def allowed(state: State, cell: int) -> float:
    """Return how many questions of a region count in this window."""
    some, times = BURST
    return state["most"] * (some + times * state["mixture"][cell] / sum(state["mixture"]))


def calibrate(state: State, cell: int, novelty: float) -> None:
    """Add a question to the sample. ``CALIBRATION`` questions without an alarm decide whether the dataset's
    distances serve: they do not if the sample's are larger. Then the sample's are the standard, with twice
    the standard error, since the mean of all regions comes from the sample too."""
    sample = state["sample"] = [*state["sample"], [cell, round(novelty, 4)]]
    if len(sample) < CALIBRATION:
        return
    state["sample"] = None
    if evidence.p_value(state["evidence"]) < state["evidence"]["threshold"]:
        return
    state["doubt"] = 1.0
    if sum(POINTS[bisect_left(state["levels"], far)] - usual(state, place) for place, far in sample) <= 0:
        return
    state["evidence"]["wealth"] = [1.0] * len(evidence.BETS)
    ranked = sorted(far for _, far in sample)
    state["levels"] = [ranked[round(level * CALIBRATION)] for level in LEVELS]
    count = len(state["counts"])
    state["sums"], state["counts"] = [0.0] * count, [0.0] * count
    for place, far in sample:
        state["sums"][place] = round(state["sums"][place] + POINTS[bisect_left(state["levels"], far)], 3)
        state["counts"][place] += 1.0
    state.update(texts=CALIBRATION, of="production", usual=1 - NOVEL_QUANTILE)
    state.update(window=[0, 0], recent=[0.0, 0.0], lately={}, asking=picking.fresh())
    state["mean"] = sum(state["sums"]) / CALIBRATION
    state["spread"] = 2 * SPREAD / state["mean"]
    state["mixture"] = [RECENT * n / CALIBRATION for n in state["counts"]]
    state["margin"] = margin(state["mixture"], state["counts"], state["spread"])


def caution(state: State) -> str | None:
    """Return what to know about the standard of ``state``, if the dataset does not represent production."""
    if state.get("of") != "production":
        return None
    return (
        f"the questions of {state['dataset_id']} do not represent production: they lie nearer to each other "
        f"than the first {CALIBRATION} prompts lie to them, as rewordings do; novelty is judged by these "
        "prompts, so subjects that were new from the first day are not seen"
    )


def margin(mixture: Sequence[float], counts: Sequence[float], spread: float) -> float:
    """Return the share by which the mean over a mixture of regions may exceed the usual mean without being
    evidence. ``mixture``: recent questions by region. ``counts``: the questions by region from which the
    usual points come."""
    total = sum(mixture)
    squares = sum((n / total) ** 2 / (known + SHRINKAGE) for n, known in zip(mixture, counts, strict=True))
    return MARGIN * spread * sqrt(squares)


def learn(state: State, *, healthy: bool) -> None:
    """Add the window that ends to the mixture and to the waiting windows, and learn from the one that waited
    ``LAG`` windows. If the window is not healthy, drop it and all waiting windows."""
    lately, mixture = state["lately"], state["mixture"]
    kept = RECENT / (RECENT + sum(count for _, count in lately.values()))
    state["mixture"] = [
        round(kept * n + lately.get(str(cell), (0, 0))[1], 3) for cell, n in enumerate(mixture)
    ]
    waiting = state["waiting"] = [*state["waiting"], lately] if healthy else []
    state["lately"] = {}
    if len(waiting) <= LAG:
        return
    for cell, (points, count) in waiting.pop(0).items():
        place = int(cell)
        kept = MEMORY / (MEMORY + count)
        state["sums"][place] = round(kept * state["sums"][place] + points, 3)
        state["counts"][place] = round(kept * state["counts"][place] + count, 3)
