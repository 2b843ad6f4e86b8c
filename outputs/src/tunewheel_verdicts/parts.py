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
from tunewheel_verdicts.proportions import mcnemar
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


def shown_worse(parts: Mapping[str, Measured], *, alpha: float) -> list[str]:
    """Return the parts on which the candidate is shown to get fewer rows right than the champion: with
    probability ``alpha`` at most, any of them is one on which both are equal.

    Each customer's rows of a part count as one observation, by the sign of their sum (exact sign test). Only
    parts with so many signs that they could be shown share the chance of error (Tarone). This finds more than
    intervals do, since few rows differ where models are equal.
    """
    signs = {name: _signs(one) for name, one in parts.items() if Role.CHAMPION in one.scores}
    share = 1
    while sum(2.0 ** -(gained + lost) <= alpha / share for gained, lost in signs.values()) > share:
        share += 1
    return [name for name, (gained, lost) in signs.items() if mcnemar(lost, gained) <= alpha / share]


def _signs(part: Measured) -> tuple[int, int]:
    """Return the number of clusters in which the candidate gets more rows right, and fewer."""
    rows = part.scores[Role.CANDIDATE].values - part.scores[Role.CHAMPION].values
    _, numbers = np.unique(part.clusters, return_inverse=True)
    sums = np.bincount(numbers, weights=-rows if part.lower_is_better else rows)
    return int((sums > 0).sum()), int((sums < 0).sum())


def of_labels(metric: Measured) -> dict[str, Measured]:
    """Return the metric on the rows of every label."""
    labels = np.array([one or "" for one in metric.labels])
    return {one: of_rows(metric, labels == one) for one in sorted(filter(None, {*metric.labels}))}


def of_rows(metric: Measured, rows: Bools) -> Measured:
    """Return the metric on some of its rows: a mask of shape (rows,)."""
    scores = {role: one.only(rows) for role, one in metric.scores.items()}
    return replace(metric, scores=scores, clusters=metric.clusters[rows], labels=(), _compared={})
