"""Estimates how much likelier a question is under a new topic than under the known labels.

Probabilistic linear discriminant analysis (Ioffe, "Probabilistic linear discriminant analysis", ECCV 2006):
the questions of a label scatter about its centre, with the same covariance for all labels; the centres
scatter with another covariance. A label's centre is estimated from its n questions, and the model includes
the error of the estimate. Pure numpy, no I/O.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from tunewheel_embedding.static import Vectors

Matrix = npt.NDArray[np.floating[Any]]
FEWEST_LABELS = 10
"""The least number of labels. With fewer, a label is too broad to be one topic."""
FEWEST_TEXTS = 4
"""The least average number of questions per label."""
FOLDS = 10
_FLAT = 1e-6
"""A standard deviation up to this value is only rounding: the questions are all the same."""
_LEAST = 1e-3
"""The least variance of the centres in any direction, relative to the variance within a label."""


@dataclass(frozen=True)
class Axes:
    """The directions in which the questions of a label have variance 1, and the centres have variance
    ``between``."""

    mean: Matrix
    """(dimensions,)"""
    turn: Matrix
    """(dimensions, dimensions)"""
    between: Matrix
    """(dimensions,)"""

    @classmethod
    def fit(cls, units: Matrix, labels: npt.NDArray[np.int64]) -> Axes:
        counts, sums = totals(units, labels)
        left = units - sums[labels] / counts[labels, None]
        freedom = len(units) - int((counts > 0).sum())
        within = shrunk_covariance(left) * len(units) / freedom
        whitening = np.linalg.inv(np.linalg.cholesky(within)).T.astype(np.float32)
        mean = units.mean(axis=0)
        variances, directions = np.linalg.eigh(shrunk_covariance((units - mean) @ whitening))
        turn = whitening @ directions.astype(np.float32)
        return cls(mean, turn, np.maximum(variances - 1.0, _LEAST).astype(np.float32))

    def apply(self, units: Matrix) -> Matrix:
        return (units - self.mean) @ self.turn


@dataclass(frozen=True)
class Topics:
    """The labels of a reference. ``offset`` and ``scale`` convert strangeness to the scale of another
    measure, so that the reference's own questions have mean 0 and that measure's standard deviation."""

    axes: Axes
    counts: Matrix
    """(labels,)"""
    sums: Matrix
    """(labels, dimensions): the sums of the questions' coordinates along the axes."""
    offset: float
    scale: float

    @classmethod
    def fit(cls, units: Matrix, labels: Sequence[str], *, spread: float) -> tuple[Topics, Vectors] | None:
        """Return the topics, and the strangeness of each row's question if it is left out of the fit. None:
        there are too few labels, too few questions per label, or all questions are the same. ``spread``: the
        standard deviation to scale to."""
        names, places = np.unique(np.asarray(labels), return_inverse=True)
        if len(names) < FEWEST_LABELS or len(units) < FEWEST_TEXTS * len(names):
            return None
        own = left_out(units, places)
        if not (spread > _FLAT and own.std() > _FLAT):
            return None
        axes = Axes.fit(units, places)
        return (
            cls(axes, *totals(axes.apply(units), places), float(own.mean()), spread / float(own.std())),
            (own - own.mean()) * spread / own.std(),
        )

    def strangeness(self, units: Matrix) -> Vectors:
        """Return for each row of ``units`` (texts, dimensions) its scaled strangeness: the logarithm of how
        much likelier it is under a new topic than under the best known label."""
        found = self.axes.apply(units)
        known = log_densities(found, self.counts, self.sums, self.axes.between).max(axis=1)
        return (log_density_of_new(found, self.axes.between) - known - self.offset) * self.scale


def left_out(units: Matrix, labels: npt.NDArray[np.int64]) -> Vectors:
    """Return the unscaled strangeness of each row if it is left out of the fit. The axes come from the rows
    of other folds (``FOLDS``), the centres from all other rows. A row that was part of the fit would never be
    strange."""
    found = np.empty(len(units))
    folds = np.empty(len(units), dtype=np.int64)
    folds[np.argsort(labels, kind="stable")] = np.arange(len(units)) % FOLDS  # each label in all of them
    for fold in range(FOLDS):
        out = folds == fold
        axes = Axes.fit(units[~out], labels[~out])
        placed = axes.apply(units)
        counts, sums = totals(placed, labels)
        rows, own = placed[out], labels[out]
        known = log_densities(rows, counts, sums, axes.between)
        known[np.arange(len(rows)), own] = log_density_without(rows, counts[own], sums[own], axes.between)
        found[out] = log_density_of_new(rows, axes.between) - known.max(axis=1)
    return found


def totals(rows: Matrix, labels: npt.NDArray[np.int64]) -> tuple[Matrix, Matrix]:
    """Return the number of rows of each label, (labels,), and their sum, (labels, dimensions)."""
    counts = np.bincount(labels).astype(np.float32)
    sums = np.zeros((len(counts), rows.shape[1]), dtype=np.float32)
    np.add.at(sums, labels, rows)
    return counts, sums


def predicted(counts: Matrix, sums: Matrix, between: Matrix) -> tuple[Matrix, Matrix]:
    """Return mean and variance of a label's next question in each direction, given its questions so far."""
    known = between * counts[:, None] + 1.0
    return between / known * sums, 1.0 + between / known


def log_densities(rows: Matrix, counts: Matrix, sums: Matrix, between: Matrix) -> Vectors:
    """Return the log densities, (rows, labels), up to a constant."""
    means, variances = predicted(counts, sums, between)
    inverse = 1.0 / variances
    squares = (rows**2) @ inverse.T - 2 * rows @ (means * inverse).T + (means**2 * inverse).sum(axis=1)
    return -0.5 * (squares + np.log(variances).sum(axis=1)).astype(np.float64)


def log_density_without(rows: Matrix, counts: Matrix, sums: Matrix, between: Matrix) -> Vectors:
    """Return (rows,): the log density of each row under its own label, given the label's other questions."""
    means, variances = predicted(counts - 1, sums - rows, between)
    found = -0.5 * ((rows - means) ** 2 / variances + np.log(variances)).sum(axis=1)
    return np.where(counts > 1, found, -np.inf).astype(np.float64)


def log_density_of_new(rows: Matrix, between: Matrix) -> Vectors:
    """Return (rows,): the log density of each row under a label without known questions."""
    return -0.5 * (rows**2 / (1.0 + between) + np.log(1.0 + between)).sum(axis=1).astype(np.float64)


def shrunk_covariance(rows: Matrix) -> npt.NDArray[np.float64]:
    """Return the covariance of centred rows, shrunk towards a multiple of the identity (Ledoit and Wolf, "A
    well-conditioned estimator for large-dimensional covariance matrices", JMVA 2004)."""
    count, width = rows.shape
    raw = (rows.T @ rows).astype(np.float64) / count
    middle = np.trace(raw) / width
    distance = ((raw - middle * np.eye(width)) ** 2).sum()
    noise = ((rows.astype(np.float64) ** 2).sum(axis=1) ** 2).sum() / count**2 - (raw**2).sum() / count
    share = float(np.clip(noise / max(distance, 1e-30), 0.0, 1.0))
    return (1.0 - share) * raw + (share * middle + 1e-12) * np.eye(width)
