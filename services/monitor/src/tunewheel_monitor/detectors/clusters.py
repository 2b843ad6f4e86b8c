"""Detects clusters of novel questions: a new topic forms a cluster, outliers do not.

Novel questions are clustered as they come (leader clustering): a question joins the nearest cluster within
the radius, or begins a new one. The expected growth of a cluster follows from exchangeability: its first
question had none of the reference's n questions near it, so the next question lies near it with a probability
of about 1 / (n + 1) (Laplace's rule of succession). Questions that join it more often than ``TOLERATED`` are
evidence, gathered per cluster as in ``evidence.py``. Clusters that do not grow are dropped. The bets on all
clusters together are worth one per window, so their sum is one e-detector.

To a dataset with rewordings of its own questions, too many known questions are novel (``novelty.py``). A
cluster may then grow faster by the doubt, until ``CALIBRATION`` questions were asked. If 19 in 20 of these do
not lie within the dataset's own limit, they set the limit for novel questions, and n is their number.
"""

from __future__ import annotations

import base64
import zlib
from typing import Literal

import numpy as np
import numpy.typing as npt
from tunewheel_contracts.events.monitoring import InferenceScored
from tunewheel_contracts.events.production import DriftCluster

from tunewheel_monitor.coverage import LEVELS, NOVEL_QUANTILE
from tunewheel_monitor.detectors import evidence
from tunewheel_monitor.detectors.documents import CALIBRATION
from tunewheel_monitor.detectors.picking import decoded, encoded
from tunewheel_monitor.detectors.points import doubt_of
from tunewheel_monitor.detectors.protocol import Finding, Opening, State
from tunewheel_monitor.detectors.votes import admitted

TOLERATED = 0.005
"""The share of all questions that one cluster may have without being evidence."""
ALIKE = 10.0
"""A region's share is estimated from only n questions, so this multiple of the expected growth is
tolerated."""
FEWEST = 4
"""The least number of questions in a cluster."""
BETS = (0.01, 0.03, 0.1)
STAKE = 0.1
"""The stake on a new cluster. At most ``NEWCOMERS`` clusters begin in a window."""
NEWCOMERS = 10
MOST_CLUSTERS = 24
MOST_IDS = 40
"""How many completions a cluster names. People answer them, and a version needs at least twenty answers."""
MOST_WORDINGS = 50
"""Of a cluster: the same words again are no further question. A topic is asked about in many ways."""
PER_USER = 2


class Clusters:
    name = "clusters"
    family: Literal["input"] = "input"
    weight = 0.15
    floor = 0.02
    """The least share of the questions that one new cluster must have to raise an alarm."""

    def open(self, opening: Opening) -> State:
        facts = opening.coverage
        if facts is None:
            return {}
        return {
            "threshold": evidence.opened(opening, self.weight)["threshold"],
            "dataset_id": opening.dataset_id,
            "texts": facts.texts,
            "radius": facts.join_radius,
            "tolerated": max(TOLERATED, ALIKE / (facts.texts + 1)),
            "doubt": doubt_of(facts),
            "quantile": facts.levels[LEVELS.index(NOVEL_QUANTILE)],
            "sample": [],
            "clusters": [],
            "seen": 0,
            "looked": 0,
            "apart": 0,
            "newcomers": 0,
            "votes": {},
            "most": max(1, round(PER_USER * opening.drift.window / 100)),
        }

    def see(self, state: State, item: InferenceScored) -> None:
        if (
            not state
            or item.of != "completion"
            or item.dataset_id != state["dataset_id"]
            or item.novel is None
        ):
            return
        novelty = item.novelty or 0.0
        novel = item.novel and novelty >= state.get("level", 0.0)  # only production's standard has a level
        if novel and not admitted(state["votes"], item.user, state["most"]):
            return
        if state.get("doubt", 1.0) > 1.0 and len(state["sample"]) < CALIBRATION:
            state["sample"].append(round(novelty, 4))
        state["seen"] += 1
        if not novel or item.vector is None:
            state["apart"] += 1
            return
        settle(state)
        vector = decoded(item.vector)
        nearest, distance = nearest_cluster(state["clusters"], vector)
        if nearest is not None and distance <= state["radius"]:
            wording = zlib.crc32(item.vector.encode())
            if wording in nearest["wordings"]:
                state["apart"] += 1
                return
            nearest["wordings"] = [*nearest["wordings"], wording][-MOST_WORDINGS:]
            join(state, nearest, vector, distance, item.completion_id)
        else:
            state["apart"] += 1
            settle(state)
            self._begin(state, item)

    def _begin(self, state: State, item: InferenceScored) -> None:
        if state["newcomers"] >= NEWCOMERS:
            return
        state["newcomers"] += 1
        clusters: list[State] = state["clusters"]
        if len(clusters) >= MOST_CLUSTERS:
            clusters.remove(min(clusters, key=weight_of))
        clusters.append(
            {
                "centre": item.vector,
                "members": 1,
                "wordings": [zlib.crc32((item.vector or "").encode())],
                "since": state["seen"],
                "wealth": [STAKE] * len(BETS),
                "ids": [item.completion_id],
                "distances": [0.0],
            }
        )

    def look(self, state: State, floor: float | None = None) -> Finding | None:
        if not state or state["seen"] == state.get("looked", 0):
            return None
        items, state["looked"] = state["seen"] - state.get("looked", 0), state["seen"]
        settle(state)
        state["votes"], state["newcomers"] = {}, 0
        wealth = sum(weight_of(cluster) for cluster in state["clusters"])
        p_value = min(1.0, 1.0 / wealth) if wealth > 0 else 1.0
        if len(state.get("sample", ())) == CALIBRATION:
            level = float(np.quantile(state["sample"], NOVEL_QUANTILE))
            if p_value >= state["threshold"] and level > state["quantile"]:
                state.update(level=level, tolerated=ALIKE / (CALIBRATION + 1), clusters=[])
            state["doubt"], state["sample"] = 1.0, []
        grown = [cluster for cluster in state["clusters"] if cluster["members"] >= FEWEST]
        largest = max(grown, key=weight_of, default=None)
        cluster = described(state, largest) if largest is not None else None
        share = cluster.share if cluster is not None else 0.0
        return Finding(
            detector=self.name,
            statistic_name="questions of the largest new cluster",
            statistic=float(cluster.prompts if cluster is not None else 0),
            usual=None,
            items=items,
            p_value=p_value,
            threshold=state["threshold"],
            effect=share,
            effect_unit="share of the questions since the cluster's first",
            floor=self.floor if floor is None else floor,
            reference=f"{state['texts']} questions of the dataset, none of which lies near it",
            action="collect_labels",
            completion_ids=cluster.completion_ids if cluster is not None else (),
            cluster=cluster,
        )


def settle(state: State) -> None:
    """Apply to every cluster's wealth the bets lost on questions since the last call that did not join it."""
    apart, state["apart"] = state["apart"], 0
    if not apart:
        return
    factors = [(1.0 - share) ** apart for share in BETS]
    for cluster in state["clusters"]:
        cluster["wealth"] = [one * factor for one, factor in zip(cluster["wealth"], factors, strict=True)]


def join(
    state: State, joined: State, vector: npt.NDArray[np.float32], distance: float, completion_id: str
) -> None:
    """Add a question to the cluster ``joined``, which wins the bet; the other clusters lose it."""
    most = evidence.CEILING / state["threshold"]
    for cluster in state["clusters"]:
        e_value = 1.0 / (state["tolerated"] * state.get("doubt", 1.0)) if cluster is joined else 0.0
        cluster["wealth"] = [
            min(most, one * (1.0 - share + share * e_value))
            for one, share in zip(cluster["wealth"], BETS, strict=True)
        ]
    members = joined["members"] = joined["members"] + 1
    centre = decoded(joined["centre"])
    joined["centre"] = encoded(centre + (vector - centre) / min(members, 50))
    known = [*zip(joined["distances"], joined["ids"], strict=True), (round(distance, 4), completion_id)]
    kept = sorted(known)[:MOST_IDS]
    joined["distances"], joined["ids"] = [d for d, _ in kept], [name for _, name in kept]


def weight_of(cluster: State) -> float:
    return sum(cluster["wealth"]) / len(cluster["wealth"])


def described(state: State, cluster: State) -> DriftCluster:
    centre = decoded(cluster["centre"])
    return DriftCluster(
        prompts=cluster["members"],
        share=min(1.0, cluster["members"] / max(1, state["seen"] - cluster["since"] + 1)),
        completion_ids=tuple(cluster["ids"]),
        centroid=tuple(round(float(component), 5) for component in centre),
        radius=round(state["radius"], 4),
    )


def nearest_cluster(clusters: list[State], vector: npt.NDArray[np.float32]) -> tuple[State | None, float]:
    """Return the cluster whose centre is nearest, and its cosine distance."""
    if not clusters:
        return None, 2.0
    raw = [np.frombuffer(base64.b64decode(cluster["centre"]), dtype=np.int8) for cluster in clusters]
    centres = np.stack(raw).astype(np.float32)
    cosines = centres @ vector / np.maximum(np.linalg.norm(centres, axis=1), 1e-9)
    nearest = int(cosines.argmax())
    return clusters[nearest], 1.0 - float(cosines[nearest])
