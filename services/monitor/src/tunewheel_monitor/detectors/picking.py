"""Chooses the questions of an alarm that people are asked about, so that few answers teach much.

A pool holds the latest odd questions, each text once. A question about a new topic has other odd questions
near it; an odd wording of a known topic has none. So a question's worth is its similarity to its nearest
neighbours in the pool. Questions are taken one by one, the worthiest first, less a penalty for similarity to
those taken before (Carbonell and Goldstein, "The use of MMR, diversity-based reranking", SIGIR 1998). So each
topic gets some, its centre first. A text that many send alike is one entry, which comes last unless other
wordings lie near it.

The sentence encoder's questions have a pool of their own, with its vectors, which tell topics better. It is
used once it has enough of them.
"""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from tunewheel_contracts.events.turns import LabelCluster
from tunewheel_contracts.identity import content_id
from tunewheel_embedding.static import Vectors, unit_length

MOST = 200
"""The most questions in the pool."""
NEAREST = 3
"""A question's worth is its mean similarity to so many neighbours."""
PENALTY = 0.3
FULL = 60
"""The pool of encoded questions is used if it has so many, or as many as the other one."""
SAME = 0.97
"""From this cosine on, two texts are the same question."""
RADIUS = 0.5
"""The cosine distance from a cluster's mean within which a question belongs to it."""
MOST_CLUSTERS = 64
SCALE = 127.0


@dataclass(frozen=True, slots=True)
class Picked:
    completion_ids: tuple[str, ...]
    """The questions to ask about beside those asked before, worthiest first."""
    clusters: tuple[LabelCluster, ...] = ()
    """The clusters of all that were asked, largest first."""
    questions: int | None = None
    """How many production questions came since the oldest one in the pool."""


def fresh() -> dict[str, Any]:
    """Return empty pools. ``pool``: by completion, the vector, how often the text came, and its number among
    all questions."""
    return {"seen": 0, "pool": {}, "encoded": {"pool": {}}}


def note(state: dict[str, Any], completion_id: str, vector: str, *, encoded: bool = False) -> None:
    """Add an odd question. ``encoded``: ``vector`` is the sentence encoder's."""
    # states of earlier releases have one pool
    pool = (state.setdefault("encoded", {"pool": {}}) if encoded else state)["pool"]
    for entry in pool.values():
        if entry[0] == vector:
            entry[1] += 1
            return
    pool[completion_id] = [vector, 1, state["seen"]]
    if len(pool) > MOST:
        del pool[next(iter(pool))]


def pick(
    state: dict[str, Any], *, most: int, asked: Collection[str] = (), clusters: Sequence[LabelCluster] = ()
) -> Picked:
    """Choose at most ``most`` questions. ``asked`` were chosen before, and lie in ``clusters``."""
    pool = _pool(state)
    if not pool:
        return Picked((), tuple(clusters))
    names = list(pool)
    raw = np.stack([decoded(vector) for vector, _, _ in pool.values()]).astype(np.float64)
    # What all odd questions share says nothing about their topics.
    units = unit_length(raw - raw.mean(axis=0)) if len(raw) > NEAREST else raw
    taken = _spread(units, [n for n, name in enumerate(names) if name in asked], most)
    groups = [
        _Group([n for n, name in enumerate(names) if name in one.completion_ids], one) for one in clusters
    ]
    for n in taken:
        place = _nearest(units[n], [one.centre(units) for one in groups])
        group = groups[place] if place is not None else _Group([])
        groups = groups if place is not None else [*groups, group]
        group.rows.append(n)
        group.added.append(names[n])
    centres = [one.centre(units) for one in groups]
    for unit, (_, count, _) in zip(units, pool.values(), strict=True):
        if (place := _nearest(unit, centres)) is not None:
            groups[place].size += count
    described = sorted((one.described() for one in groups), key=_largest_first)
    since = min(before for _, _, before in pool.values())
    return Picked(tuple(names[n] for n in taken), tuple(described[:MOST_CLUSTERS]), state["seen"] + 1 - since)


def unasked(state: dict[str, Any], asked: Collection[str]) -> int:
    """Return how many questions of the pool nobody was ``asked`` about."""
    return len(_pool(state).keys() - {*asked})


def _pool(state: dict[str, Any]) -> dict[str, Any]:
    encoded = state.get("encoded", {"pool": {}})["pool"]
    return encoded if len(encoded) >= min(FULL, len(state["pool"])) else state["pool"]


def name_of(completion_id: str) -> str:
    """Return the name of the cluster that was begun with this question."""
    return content_id("cluster", completion_id, digits=8)


@dataclass
class _Group:
    rows: list[int]
    """The questions asked about that the pool still has."""
    before: LabelCluster | None = None
    added: list[str] = field(default_factory=list[str])
    size: int = 0

    def centre(self, units: Vectors) -> Vectors:
        return unit_length(units[self.rows].sum(axis=0, keepdims=True))[0]

    def described(self) -> LabelCluster:
        ids = (*(self.before.completion_ids if self.before else ()), *self.added)
        size = max(self.size, len(ids), self.before.size if self.before else 0)
        name = self.before.cluster_id if self.before else name_of(ids[0])
        return LabelCluster(cluster_id=name, completion_ids=ids, size=size)


def _spread(units: Vectors, before: Sequence[int], most: int) -> list[int]:
    """Return the rows of up to ``most`` questions, worthiest first."""
    cosines = units @ units.T
    others = np.where((cosines >= SAME) | np.eye(len(units), dtype=bool), -1.0, cosines)
    worth = np.sort(others, axis=1)[:, -NEAREST:].mean(axis=1)
    alike = cosines[:, list(before)].max(axis=1) if before else np.zeros(len(units))
    taken: list[int] = []
    for _ in range(most):
        gain = np.where(alike < SAME, worth - PENALTY * alike, -np.inf)
        best = int(gain.argmax())
        if not np.isfinite(gain[best]):
            break
        taken.append(best)
        alike = np.maximum(alike, cosines[best])
    return taken


def _nearest(unit: Vectors, centres: Sequence[Vectors]) -> int | None:
    """Return the place of the centre that a question lies near."""
    cosines = np.stack(centres) @ unit if centres else np.full(1, -1.0)
    return int(cosines.argmax()) if 1.0 - cosines.max() <= RADIUS else None


def _largest_first(cluster: LabelCluster) -> tuple[int, str]:
    return -cluster.size, cluster.cluster_id


def decoded(vector: str) -> npt.NDArray[np.float32]:
    """Return the unit vector of ``encoded``; zeros stay zeros."""
    components = np.frombuffer(base64.b64decode(vector), dtype=np.int8).astype(np.float32)
    length = float(np.linalg.norm(components))
    return components / length if length else components


def encoded(vector: npt.NDArray[Any]) -> str:
    """Write a vector's direction as signed bytes, in base64 (the form of ``InferenceScored.vector``)."""
    length = float(np.linalg.norm(vector))
    unit = vector / length if length else vector
    return base64.b64encode(np.rint(unit * SCALE).astype(np.int8).tobytes()).decode()
