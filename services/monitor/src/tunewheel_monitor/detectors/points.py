"""One measure of novelty: points by the distance of a question, compared with those that are usual in its
region. ``novelty.py`` says how, and gathers the evidence of such measures.
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Sequence
from math import sqrt
from typing import Any

from tunewheel_contracts.events.monitoring import InferenceScored

from tunewheel_monitor.coverage import LEVELS, NOVEL_QUANTILE, ODD, POINTS, CoverageFacts
from tunewheel_monitor.detectors import evidence, picking
from tunewheel_monitor.detectors.documents import CALIBRATION, SPREAD
from tunewheel_monitor.detectors.protocol import Opening, State
from tunewheel_monitor.detectors.rates import recalled
from tunewheel_monitor.detectors.votes import admitted, bucket

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
ENCODED_PAIRS = 0.13
ENCODED_DOUBT = 1.5
"""The same for the distances of the sentence encoder. To it, few rewordings hardly raise the points of known
questions. If nearly all questions are copies, they raise them as much as to static vectors."""
SPARE = 0.025
"""How far ``PAIRS`` lies above the pairs of raw questions."""
BURST = [2, 100]
"""Of a hundred questions, at most ``PER_USER`` * (2 + 100 * recent share) of one region are evidence of a
rise: six, and three times as many as lately. So a burst of known questions raises no alarm in a region whose
usual points are poorly known."""
ENCODED_BURST = [1, 60]
"""The same where a sentence encoder judges too: to it new topics lie in more regions."""
CAUTION = 2.0
"""Where there is a sentence encoder, evidence must be so many times as strong as the risk asks: that costs
no power."""
GROWTH = 1_000.0
"""In one window the evidence grows to at most so many times what it was before. A burst of known questions
may last a window; a new subject stays for another one."""
NOVEL = LEVELS.index(NOVEL_QUANTILE)
ODD_LEVEL = LEVELS.index(ODD)
REMEMBERED = 1_000
"""So many odd texts are remembered, those that were asked last. The same text again is no evidence: greetings
and canned messages come often, and the dataset may lack them."""
OUTAGE = 0.2
"""Once one text has so large a share of a window, it is evidence again, once for each further named user. No
greeting comes so often, but in an outage many ask in the same words."""


def opened(opening: Opening, facts: CoverageFacts, weight: float, *, doubt: float) -> State:
    """Return the initial state of one measure of novelty. ``doubt``: that of ``doubt_of``."""
    return {
        "evidence": evidence.opened(opening, weight),
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
        "asked": [],
        "times": {},
    }


def take(state: State, item: InferenceScored, cell: int, novelty: float, vector: str | None) -> int | None:
    """Update one measure's state with a question, and return below which of the ``LEVELS`` its novelty
    lies; None: it does not count. ``vector``: the measure's own, which odd questions have. A text that was
    asked before counts for the size of a change, and is no evidence of one."""
    if cell >= len(state["counts"]) or not admitted(state["votes"], item.user, state["most"]):
        return None
    is_odd = bisect_left(state["levels"], novelty) > ODD_LEVEL
    again = is_odd and vector is not None and asked_before(state, vector, item.user)
    if state.get("sample") is not None and not again:  # states of earlier releases have none
        calibrate(state, cell, novelty)
    level = bisect_left(state["levels"], novelty)
    state["window"][0] += level > NOVEL
    state["window"][1] += 1
    if again:
        return level
    points = POINTS[level]
    lately = state["lately"].setdefault(str(cell), [0.0, 0])
    lately[0], lately[1] = round(lately[0] + points, 3), lately[1] + 1
    e_value = points / (usual(state, cell) * state.get("doubt", 1.0))
    e_value = min(1.0, e_value) if lately[1] > allowed(state, cell) else e_value
    before = state.setdefault("before", max(1.0, strength(state)))  # states of earlier releases have none
    ceiling = min(CAUTION * evidence.CEILING, GROWTH * before * state["evidence"]["threshold"])
    evidence.bet(state["evidence"], e_value, ceiling)
    return level


def asked_before(state: State, vector: str, user: str | None) -> bool:
    """Return whether an odd text was asked lately, and remember it, as a checksum of its vector. A text of
    which the window is full counts as another one for each user who asks for the first time."""
    asked: list[int] = state.setdefault("asked", [])  # states of earlier releases have none
    text = zlib.crc32(vector.encode())
    found = text in asked
    if found:
        asked.remove(text)
    asked.append(text)
    del asked[:-REMEMBERED]
    times = state.setdefault("times", {})
    times[str(text)] = times.get(str(text), 0) + 1
    is_full = times[str(text)] > OUTAGE / state["evidence"]["stake"]
    return found and not (is_full and user is not None and state["votes"][bucket(user)] == 1)


def close(state: State, p_value: float) -> None:
    """End one measure's window."""
    state["recent"] = list(recalled(state["recent"], state["window"][0], state["window"][1], RECENT))
    state["window"], state["votes"], state["times"] = [0, 0], {}, {}
    state["before"] = max(1.0, strength(state))
    learn(state, healthy=p_value >= HEALTHY and state.get("sample") is None)
    state["margin"] = margin(state["mixture"], state["counts"], state["spread"])


def strength(state: State) -> float:
    """Return one measure's evidence."""
    return sum(state["evidence"]["wealth"]) / len(evidence.BETS)


def doubt_of(facts: CoverageFacts, usual: float = PAIRS, each: float = DOUBT) -> float:
    """Return the factor by which the dataset's own rewordings may raise the points of known questions; 1: its
    pairs are as rare as those of raw questions, of which ``usual`` lie in pairs."""
    natural = usual * (facts.texts / 1_000) ** 0.2
    more = facts.pairs - natural + SPARE
    return 1.0 if facts.pairs <= natural else 1.0 + each * more + (DOUBT - each) * more * more


def usual(state: State, cell: int) -> float:
    """Return the mean points of this region's questions up to which there is no evidence."""
    known = state["counts"][cell] + SHRINKAGE
    mean = (state["sums"][cell] + SHRINKAGE * state["mean"]) / known
    return mean * (1 + state["margin"])


def allowed(state: State, cell: int) -> float:
    """Return how many questions of a region count in this window."""
    some, times = state.get("burst", BURST)
    return state["most"] * (some + times * state["mixture"][cell] / sum(state["mixture"]))


def calibrate(state: State, cell: int, novelty: float) -> None:
    """Add a question to the sample. ``CALIBRATION`` questions without an alarm decide whether the dataset's
    distances serve: they do not if the sample's are larger. Then the sample's are the standard, with twice
    the standard error, since the mean of all regions comes from the sample too."""
    sample: list[Any] = [*state["sample"], [cell, round(novelty, 4)]]
    state["sample"] = sample
    if len(sample) < CALIBRATION:
        return
    state["sample"] = None
    if evidence.p_value(state["evidence"]) < state["evidence"]["threshold"]:
        return
    state["doubt"] = 1.0
    if sum(POINTS[bisect_left(state["levels"], far)] - usual(state, place) for place, far in sample) <= 0:
        return
    state["evidence"]["wealth"] = [1.0] * len(evidence.BETS)
    if "asking" in state:
        state["asking"] = picking.fresh()
    ranked = sorted(far for _, far in sample)
    state["levels"] = [ranked[round(level * CALIBRATION)] for level in LEVELS]
    count = len(state["counts"])
    state["sums"], state["counts"] = [0.0] * count, [0.0] * count
    for place, far in sample:
        state["sums"][place] = round(state["sums"][place] + POINTS[bisect_left(state["levels"], far)], 3)
        state["counts"][place] += 1.0
    state.update(texts=CALIBRATION, of="production", usual=1 - NOVEL_QUANTILE)
    state.update(window=[0, 0], recent=[0.0, 0.0], lately={})
    state["mean"] = sum(state["sums"]) / CALIBRATION
    state["spread"] = 2 * SPREAD / state["mean"]
    state["mixture"] = [RECENT * n / CALIBRATION for n in state["counts"]]
    state["margin"] = margin(state["mixture"], state["counts"], state["spread"])


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
