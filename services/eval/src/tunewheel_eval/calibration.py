"""How often a model's labels are right, by its own probability of them. The monitor estimates production's
accuracy from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tunewheel_contracts.formats.confidence import Calibration
from tunewheel_outputs.confidence import logit

FEWEST_ROWS = 30
USUAL = np.array([0.0, 1.0])
"""Intercept and slope of a model whose probabilities are right: the prior's mean."""
PRECISION = np.diag([0.01, 0.25])
"""Of the prior, which counts only where rows say little: for example if all labels are right."""
SPREAD, SPREAD_ROWS = 0.1, 200
"""The spread between labels that is assumed, with the weight of so many rows: few rows say little."""
STEPS = 100


def calibrated(rows: Sequence[tuple[float, float, str]]) -> Calibration | None:
    """Return the calibration by ``rows`` of (probability above 0, 1 if the label is right or 0, label). None:
    there are too few."""
    if len(rows) < FEWEST_ROWS:
        return None
    right = np.array([hit for _, hit, _ in rows])
    sure = np.array([(1.0, logit(share)) for share, _, _ in rows])
    weights = USUAL.copy()
    for _ in range(STEPS):  # Newton's method, with short steps at first
        found = _share(sure @ weights)
        curvature = (sure * (found * (1 - found))[:, None]).T @ sure + PRECISION
        step = np.linalg.solve(curvature, sure.T @ (right - found) - PRECISION @ (weights - USUAL))
        weights += step * min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-9))
        if np.abs(step).max() < 1e-8:
            break
    found = _share(sure @ weights)
    covariance = np.linalg.inv((sure * (found * (1 - found))[:, None]).T @ sure + PRECISION)
    return Calibration(
        rows=len(rows),
        intercept=float(weights[0]),
        slope=float(weights[1]),
        covariance=(float(covariance[0, 0]), float(covariance[0, 1]), float(covariance[1, 1])),
        spread=_spread(right - found, found * (1 - found), [label for _, _, label in rows]),
    )


def _share(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def _spread(residuals: np.ndarray, variances: np.ndarray, labels: Sequence[str]) -> float:
    """Return the standard deviation between labels: of their mean residuals, less the sampling error that
    these have anyway (the method of moments)."""
    _, places = np.unique(np.asarray(labels), return_inverse=True)
    counts = np.bincount(places)
    squares = np.bincount(places, residuals) ** 2 / counts
    errors = np.bincount(places, variances) / counts
    between = float(squares.sum() - errors.sum())
    return float(np.sqrt(max(0.0, (between + SPREAD_ROWS * SPREAD**2) / (len(residuals) + SPREAD_ROWS))))
