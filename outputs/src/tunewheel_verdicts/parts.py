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
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import MET, MISSED, CriterionCheck, Role
from tunewheel_outputs.criteria import refusal_level_of

from tunewheel_verdicts.measured import SLACK, Measured
from tunewheel_verdicts.proportions import mcnemar
from tunewheel_verdicts.significance import Advantage, Bools
from tunewheel_verdicts.wording import between, number


def check_labels(criterion: Criterion, metric: Measured, seed: int) -> CriterionCheck:
    """Check a bound on single labels: it is missed where more than it is shown to be lost, and else met."""
    bound, parts = criterion.over_champion or 0.0, of_labels(metric)
    if criterion.label is not None:
        parts = {label: one for label, one in parts.items() if label == criterion.label}
    alpha = refusal_level_of(criterion, 1)
    found = together(parts, alpha=alpha, seed=seed)
    lost = [label for label, one in found.items() if bound - one.high - metric.repeat_spread > SLACK]
    if bound == metric.repeat_spread == 0 and metric.test == "proportion":
        lost = shown_worse(parts, alpha=alpha)
    worst = min(found, key=lambda label: found[label].high, default=None)
    said = [_of_label(label, parts[label], found.get(label)) for label in lost or ([worst] if worst else [])]
    shown = (
        "is shown to lose more than"
        if lost
        else "is the worst of its labels, and not shown to lose more than"
    )
    reason = f"{metric.name} of {'; '.join(said)} {shown} {number(abs(bound))}"
    if not said:
        reason = f"{criterion.title}: there is no champion, or no label has enough rows to show a loss"
    return CriterionCheck(
        criterion=criterion,
        observed=parts[worst].figure_of(Role.CANDIDATE) if worst else None,
        passed=not lost,
        reason=reason,
        outcome=MISSED if lost else MET,
    )


def _of_label(label: str, part: Measured, advantage: Advantage | None) -> str:
    figures = f"{number(part.figure_of(Role.CANDIDATE))} against {number(part.figure_of(Role.CHAMPION))}"
    ends = (
        ""
        if advantage is None
        else f", {between(advantage.difference, advantage.low, advantage.high, signed=True)}"
    )
    return f"{label} ({figures} of {len(part.clusters)} rows{ends})"


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
    return {one: of_rows(metric, labels == one) for one in sorted({one for one in metric.labels if one})}


def of_rows(metric: Measured, rows: Bools) -> Measured:
    """Return the metric on some of its rows: a mask of shape (rows,)."""
    scores = {role: one.only(rows) for role, one in metric.scores.items()}
    return replace(metric, scores=scores, clusters=metric.clusters[rows], labels=(), _compared={})
