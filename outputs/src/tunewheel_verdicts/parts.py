"""Compares candidate and champion on parts of the rows, such as those of each label, with intervals that hold
together.

The ends share the chance of error (Bonferroni) among the parts that can show anything at all: n observations
have no p-value below 2^-n, whatever they are (Tarone, "A modified Bonferroni method for discrete data",
Biometrics 46, 1990, by the number of observations alone).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from tunewheel_contracts.formats.scorecard import Role

from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Advantage, Bools


def together(parts: Mapping[str, Measured], *, alpha: float, seed: int) -> dict[str, Advantage]:
    """Return the advantage on each part. Each end of all intervals together holds with probability
    1 - ``alpha``. A part that is too small to show anything, or that has no champion, is left out."""
    sizes = {name: len(np.unique(one.clusters)) for name, one in parts.items()}
    telling = [name for name, one in parts.items() if Role.CHAMPION in one.scores]
    for _ in range(len(telling)):
        telling = [one for one in telling if 2.0 ** -sizes[one] <= alpha / len(telling)]
    level = alpha / max(1, len(telling))
    found = {name: parts[name].against(Role.CHAMPION, alpha=level, seed=seed) for name in telling}
    return {name: one for name, one in found.items() if one is not None}


def of_labels(metric: Measured) -> dict[str, Measured]:
    """Return the metric on the rows of every label."""
    labels = np.array([one or "" for one in metric.labels])
    return {one: of_rows(metric, labels == one) for one in sorted(filter(None, {*metric.labels}))}


def of_rows(metric: Measured, rows: Bools) -> Measured:
    """Return the metric on some of its rows: a mask of shape (rows,)."""
    scores = {role: one.only(rows) for role, one in metric.scores.items()}
    return replace(metric, scores=scores, clusters=metric.clusters[rows], labels=(), _compared={})
