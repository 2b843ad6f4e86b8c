"""Detects that people ask more often about things that the documents do not cover.

The distance of a question from its best passage is 1 minus the cosine of their vectors. Which distance is
large depends on the embedder, on how documents are cut and on how people ask. So the project's own questions
define it: the first ``CALIBRATION`` questions with a search. After that a question gets points by its rank
among these, as in ``novelty.py``: few points if most of them were as far away, many if hardly any was. The
mean points are compared with those of recent healthy windows. Their standard error follows from the ranks
alone, which are uniform under any distribution (Vovk, Gammerman and Shafer, "Algorithmic learning in a random
world", 2005).

A new model or a new index version does not change the comparison. New documents bring passages nearer, and
the alarm ends; removed documents do the opposite.

Another retrieval spec starts a new calibration, because its distances cannot be compared. Each answer names
its spec, and only the answers decide which spec is current: answers may be folded late, when the project has
declared a newer one. Another spec becomes current once ``IN_A_ROW`` answers name it, all given after the
latest answer by the current spec. So a late answer, or two gateways that change one after the other, do not
restart the calibration twice. A gateway whose clock ran ahead makes all later answers look late. So another
spec also becomes current after ``LATE_IN_A_ROW`` late answers in a row.
"""

from __future__ import annotations

import copy
from bisect import bisect_left
from itertools import pairwise
from math import sqrt
from typing import Literal

from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import DriftCluster

from tunewheel_monitor.coverage import LEVELS, NOVEL_QUANTILE, POINTS
from tunewheel_monitor.detectors import evidence
from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.rates import recalled
from tunewheel_monitor.detectors.votes import admitted

CALIBRATION = 500
MARGIN = 1.3
"""A mean within so many standard errors of the usual mean is no evidence. Twice as many count while only the
calibration is known, since ranks in their own sample have a fixed mean."""
RECENT = 300.0
"""The size of a change is measured over about so many recent questions; older ones fade."""
MEMORY = 2_000.0
"""The usual mean is taken over about so many questions of healthy windows; older ones fade."""
HEALTHY = 0.2
"""The p-value from which a window counts as healthy."""
IN_A_ROW = 20
"""Another retrieval spec becomes current after so many answers in a row by it."""
PER_USER = 3
"""Of a hundred questions, at most so many of one user count."""
SHOWN = 60
"""How many questions an alarm names. A person reads them to see which documents are missing."""
LATE_IN_A_ROW = 2_000
"""The same for answers that are older than ``latest``. It is more than the usual lag of a partition."""
ABOUT_THE_NEXT = ("latest", "next", "late")
_BADLY = LEVELS.index(NOVEL_QUANTILE)
_SHARES = [after - before for before, after in pairwise((0.0, *LEVELS, 1.0))]
_MEAN = sum(share * points for share, points in zip(_SHARES, POINTS, strict=True))
SPREAD = sqrt(sum(share * points**2 for share, points in zip(_SHARES, POINTS, strict=True)) - _MEAN**2)
"""The standard deviation of the points if nothing changed."""


class Documents:
    name = "documents"
    family: Literal["input"] = "input"
    weight = 0.06
    floor = 0.03
    """The least rise of the share of badly covered questions that raises an alarm."""

    def open(self, opening: Opening) -> State:
        opened: State = {
            "evidence": evidence.opened(opening, self.weight),
            "spec": None,
            "latest": 0.0,
            "next": [None, 0],
            "late": [None, 0],
            "sample": [],
            "levels": [],
            "usual": [0.0, 0.0, 0.0],
            "window": [0.0, 0, 0],
            "recent": [0.0, 0.0],
            "votes": {},
            "most": max(1, round(PER_USER * opening.drift.window / 100)),
            "ids": [],
        }
        before = opening.predecessor
        if before is None:
            return opened
        carried: State = {name: opened[name] for name in ABOUT_THE_NEXT} | copy.deepcopy(before)
        if carried.keys() != opened.keys():
            return opened
        evidence.follow(carried, opened)
        return carried

    def see(self, state: State, item: InferenceScored) -> bool | None:
        if item.similarity is None or not _is_compared(state, item):
            return None
        if not admitted(state["votes"], item.user, state["most"]):
            return None
        if not state["levels"]:
            _calibrate(state, distance(item.similarity))
            return None
        level = bisect_left(state["levels"], distance(item.similarity))
        evidence.bet(state["evidence"], POINTS[level] / limit(state))
        points, bad, seen = state["window"]
        state["window"] = [round(points + POINTS[level], 3), bad + (level > _BADLY), seen + 1]
        if level > _BADLY:
            state["ids"] = [item.completion_id, *state["ids"][: SHOWN - 1]]
        return level > _BADLY

    def look(self, state: State, floor: float | None = None) -> Finding | None:
        (points, bad, seen), usual = state["window"], state["usual"]
        state["window"], state["votes"] = [0.0, 0, 0], {}
        if not seen:
            return None
        p_value = evidence.p_value(state["evidence"])
        bad_lately, seen_lately = state["recent"] = recalled(state["recent"], bad, seen, RECENT)
        rate, rate_before = bad_lately / seen_lately, usual[1] / usual[2]
        if p_value >= HEALTHY:
            kept = MEMORY / (MEMORY + seen)
            more = zip(usual, (points, bad, seen), strict=True)
            state["usual"] = [round(kept * before + now, 3) for before, now in more]
        ids = tuple(state["ids"])
        about = DriftCluster(prompts=max(1, round(bad_lately)), share=rate, completion_ids=ids)
        return Finding(
            detector=self.name,
            statistic_name="share of questions with nothing in the documents",
            statistic=rate,
            usual=rate_before,
            items=seen,
            p_value=p_value,
            threshold=state["evidence"]["threshold"],
            effect=rate - rate_before,
            effect_unit="rise of the share of questions with nothing in the documents",
            floor=self.floor if floor is None else floor,
            reference=f"{usual[2]:.0f} questions of healthy windows, of which {rate_before:.1%} lie as far",
            action="update_documents",
            completion_ids=ids,
            cluster=about,
        )


def fits_badly(state: State, item: InferenceScored) -> bool:
    """Return whether a question lies farther from its best passage than 95 in 100 questions of the
    calibration."""
    if not state["levels"] or item.similarity is None or item.retrieval_sha256 != state["spec"]:
        return False
    return distance(item.similarity) > state["levels"][_BADLY]


def distance(similarity: float) -> float:
    return round(1 - similarity, 4)


def limit(state: State) -> float:
    """Return the mean points up to which there is no evidence."""
    points, _, seen = state["usual"]
    return points / seen + MARGIN * (1 + CALIBRATION / seen) * SPREAD / sqrt(seen)


def _is_compared(state: State, item: InferenceScored) -> bool:
    """Return whether an answer is by the current retrieval spec. If another spec becomes current with this
    answer, start a new calibration. States of an earlier release lack the fields ``ABOUT_THE_NEXT``."""
    spec, at = item.retrieval_sha256, item.at.timestamp()
    latest = state.setdefault("latest", 0.0)
    if spec is None:
        return False
    if spec != state["spec"]:
        kind, enough = ("late", LATE_IN_A_ROW) if at < latest else ("next", IN_A_ROW)
        name, count = state.get(kind, [None, 0])
        state[kind] = [spec, count + 1 if spec == name else 1]
        if state["spec"] is not None and state[kind][1] < enough:
            return False
        _begin(state, spec)
        latest = at
    state.update(latest=max(latest, at), next=[None, 0], late=[None, 0])
    return True


def _begin(state: State, spec: str) -> None:
    """Start a new calibration for ``spec``."""
    state.update(spec=spec, sample=[], levels=[], usual=[0.0, 0.0, 0.0], window=[0.0, 0, 0])
    state.update(recent=[0.0, 0.0], ids=[])
    state["evidence"]["wealth"] = [1.0] * len(evidence.BETS)


def _calibrate(state: State, far: float) -> None:
    """Add one question to the calibration. The last one sets the levels. The same questions also start the
    usual mean."""
    sample = state["sample"] = sorted([*state["sample"], far])
    if len(sample) < CALIBRATION:
        return
    levels = [sample[round(level * CALIBRATION)] for level in LEVELS]
    places = [bisect_left(levels, one) for one in sample]
    usual = [sum(POINTS[n] for n in places), sum(n > _BADLY for n in places), CALIBRATION]
    state.update(levels=levels, sample=[], usual=[round(float(n), 3) for n in usual])
