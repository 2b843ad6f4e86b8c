"""Decides which questions a dataset covers, by the geometry of its own questions. Pure numpy, no I/O.

A question is covered if the dataset has a question near it. The dataset itself shows what "near" means: the
distance of each of its questions to the nearest other one (leave one out). If the questions have labels, the
labels show which directions matter (``topics.py``): how strange a question is to every label counts as much
as its distance. The mixture does not matter: traffic about one known intent is as covered as traffic about
all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from tunewheel_embedding.static import Projection, Vectors, unit_length

from tunewheel_monitor.topics import Topics

Units = npt.NDArray[np.float32]
NOVEL_QUANTILE = 0.95
"""The quantile of the reference's own distances beyond which a question is novel."""
ODD = 0.8
"""The quantile of these distances from which on people may be asked about a question. Many questions about a
new topic are not novel, but they show that it is a topic."""
LEVELS = (0.4, 0.6, 0.8, 0.9, 0.95, 0.98)
"""Quantiles of the reference's own distances, between which questions get different points."""
POINTS = (0.2, 0.5, 1.1, 1.9, 2.8, 4.2, 6.0)
"""The points of a question below the first of the ``LEVELS``, between the first two, and so on. They are
roughly how much more frequent such a distance is among questions about new topics. The distance says more
than only whether a question is novel."""
PAIR = 0.4
"""Two questions that are each other's nearest are a pair if their distance is less than this share of the
distance to the second nearest."""
MOST_CELLS = 64
TEXTS_PER_CELL = 15
_ROUNDS = 8
_BLOCK = 1_024


@dataclass(frozen=True, slots=True)
class CoverageFacts:
    """The figures of a reference that the detectors need: a few KiB, without texts."""

    texts: int
    novel_rate: float
    """Share of the reference's own questions that are novel to the others."""
    levels: tuple[float, ...]
    """The novelty at each of the quantiles ``LEVELS``."""
    cell_shares: tuple[float, ...]
    cell_points: tuple[float, ...]
    """By cell: the sum of the points of the reference's own questions whose nearest other question lies in
    it."""
    cell_counts: tuple[int, ...]
    """By cell: the number of these questions."""
    mean_points: float
    spread: float
    """The standard deviation of all points, divided by their mean."""
    pairs: float
    """The share of the questions that lie in pairs (``PAIR``). A question that was reworded lies beside its
    rewordings; then the distances of the reference's own questions are too small a standard."""
    join_radius: float
    """A cosine distance between unit vectors of the embedding table (as in ``InferenceScored.vector``). 19 in
    20 of the reference's own questions have another question within this distance."""


@dataclass(frozen=True, slots=True)
class Scores:
    """For each text: the nearest question of the reference, that question's cell, the text's novelty, and
    whether the text is novel."""

    nearest: npt.NDArray[np.int64]
    """Row numbers of the reference."""
    cell: npt.NDArray[np.int64]
    novelty: Vectors
    """The cosine distance to the nearest question, plus the text's strangeness to every label, in the same
    scale."""
    novel: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Coverage:
    """A reference's questions, prepared for comparisons."""

    units: Units
    """(texts, dimensions): without the component that all texts share, of unit length."""
    projection: Projection
    cells: npt.NDArray[np.int64]
    """(texts,): the region of the reference in which each question lies."""
    quantile: float
    """The novelty beyond which a question is novel."""
    topics: Topics | None
    """None: the questions have no labels that can serve as topics."""
    facts: CoverageFacts

    @classmethod
    def fit(cls, vectors: Vectors, labels: Sequence[str] = ()) -> Coverage:
        """Fit a reference to ``vectors`` (texts, dimensions) of the embedding table, at least two, and to the
        label of each, if there are labels.

        Deterministic. Time grows with the square of the texts: about 5 s for 8,000.
        """
        projection = Projection.fit(vectors)
        units = projection.apply(vectors).astype(np.float32)
        distances, neighbours, second = nearest_others(units)
        mutual = neighbours[neighbours] == np.arange(len(units))
        pairs = float((mutual & (distances < PAIR * second)).mean())
        fitted = Topics.fit(units, labels, spread=float(distances.std())) if len(labels) else None
        if fitted is not None:
            distances = distances + fitted[1]
        cells = regions(units, max(1, min(MOST_CELLS, len(units) // TEXTS_PER_CELL)))
        levels = tuple(float(level) for level in np.quantile(distances, LEVELS))
        quantile = levels[LEVELS.index(NOVEL_QUANTILE)]
        own, count, scored = cells[neighbours], int(cells.max()) + 1, points(distances, levels)
        raw = sampled_distances(unit_length(vectors).astype(np.float32))
        facts = CoverageFacts(
            texts=len(units),
            novel_rate=float((distances > quantile).mean()),
            levels=levels,
            cell_shares=tuple(float(n) / len(units) for n in np.bincount(cells)),
            cell_points=tuple(float(n) for n in np.bincount(own, weights=scored, minlength=count)),
            cell_counts=tuple(int(n) for n in np.bincount(own, minlength=count)),
            mean_points=float(scored.mean()),
            spread=float(scored.std() / scored.mean()),
            pairs=pairs,
            join_radius=float(np.quantile(raw, NOVEL_QUANTILE)),
        )
        return cls(units, projection, cells, quantile, fitted[0] if fitted else None, facts)

    def score(self, vectors: Vectors) -> Scores:
        """Score texts (texts, dimensions) against the reference. In batches this costs a tenth of the
        time."""
        asked = self.projection.apply(vectors).astype(np.float32)
        nearest = np.empty(len(asked), dtype=np.int64)
        novelty = np.empty(len(asked))
        for start in range(0, len(asked), _BLOCK):
            block = slice(start, start + _BLOCK)
            cosines = asked[block] @ self.units.T
            nearest[block] = cosines.argmax(axis=1)
            novelty[block] = 1.0 - cosines.max(axis=1)
        if self.topics is not None:
            novelty += self.topics.strangeness(asked)
        return Scores(nearest, self.cells[nearest], novelty, novelty > self.quantile)


@dataclass(frozen=True)
class Encoding:
    """A dataset's questions by the vectors of ``encoder``, a sentence encoder."""

    encoder: str
    coverage: Coverage


def points(distances: Vectors, levels: tuple[float, ...]) -> Vectors:
    """Return the points of each distance."""
    return np.asarray(POINTS)[np.searchsorted(np.asarray(levels), distances, side="left")]


def nearest_others(units: Units) -> tuple[Vectors, npt.NDArray[np.int64], Vectors]:
    """Return each row's cosine distance to the nearest other row, which row that is, and the distance to the
    second nearest."""
    distances, second = np.empty(len(units)), np.empty(len(units))
    neighbours = np.empty(len(units), dtype=np.int64)
    for start in range(0, len(units), _BLOCK):
        rows = np.arange(start, min(start + _BLOCK, len(units)))
        cosines = units[rows] @ units.T
        cosines[np.arange(len(rows)), rows] = -np.inf
        neighbours[rows] = cosines.argmax(axis=1)
        distances[rows] = 1.0 - cosines.max(axis=1)
        cosines[np.arange(len(rows)), neighbours[rows]] = -np.inf
        second[rows] = 1.0 - cosines.max(axis=1)
    return distances, neighbours, second


def sampled_distances(units: Units) -> Vectors:
    """Return the cosine distances of at most ``_BLOCK`` rows, spread over all, to the nearest other row."""
    rows = np.unique(np.linspace(0, len(units) - 1, min(len(units), _BLOCK)).round().astype(int))
    cosines = units[rows] @ units.T
    cosines[np.arange(len(rows)), rows] = -np.inf
    return 1.0 - cosines.max(axis=1).astype(np.float64)


def regions(units: Units, count: int) -> npt.NDArray[np.int64]:
    """Divide the rows into at most ``count`` cells by spherical k-means, numbered without gaps.

    The initial centres are rows spread evenly over the list. Starting with the rows that are farthest apart
    would give each outlier a cell of its own, with too few questions to learn from.
    """
    centres = units[np.linspace(0, len(units) - 1, count).round().astype(int)]
    cells = np.zeros(len(units), dtype=np.int64)
    for _ in range(_ROUNDS):
        cells = (units @ centres.T).argmax(axis=1)
        sums = np.zeros_like(centres)
        np.add.at(sums, cells, units)
        filled = np.bincount(cells, minlength=len(centres)) > 0
        centres = np.where(filled[:, None], unit_length(sums.astype(np.float64)), centres).astype(np.float32)
    _, numbered = np.unique(cells, return_inverse=True)
    return numbered.astype(np.int64)
