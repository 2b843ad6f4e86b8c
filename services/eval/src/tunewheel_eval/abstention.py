"""Finds the least confidence at which few enough of the answers that are sent are wrong.

"Learn then test" (Angelopoulos, Bates, Candès, Jordan and Lei, "Learn then test: calibrating predictive
algorithms to achieve risk control", 2021): walk from few answers to more for as long as the upper bound of
the wrong share, by Clopper and Pearson, stays below the risk. Several walks begin at different shares of the
rows, and divide the error probability: one walk alone would often end at an early wrong row.

Held-out rows have no unknown subjects, so their answers are added by assumption: a model is as sure of an
answer to an unknown subject as of a wrong answer to a held-out row.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from tunewheel_contracts.formats.confidence import AbstainSpec, Abstention, RiskPoint
from tunewheel_outputs.confidence import share_right
from tunewheel_verdicts.design_effect import effective_rows
from tunewheel_verdicts.proportions import clopper_pearson
from tunewheel_verdicts.significance import Clusters

from tunewheel_eval.metrics import LABELS, Outcomes

ALPHA = 0.1
"""The probability with which a risk is shown as kept that is not."""
STARTS = (0.4, 0.7)
"""The shares of the rows at which walks begin."""
STEPS = 40


def abstention_of(found: Outcomes, clusters: Clusters, spec: AbstainSpec | None) -> Abstention | None:
    """Return which answers of a contestant are not sent under ``spec``. None: the project does not abstain,
    or the contestant's confidence is not known."""
    known, labels = found.calibration, found.by_metric.get(LABELS)
    if spec is None or known is None or labels is None or not found.sure:
        return None
    kept = labels.scored
    sure = [share_right(one, known.intercept, known.slope) if one else 0.0 for one in found.sure]
    return abstention(np.array(sure)[kept], labels.values[kept], np.asarray(clusters)[kept], spec)


def abstention(
    confidence: ArrayLike, right: ArrayLike, clusters: NDArray[Any], spec: AbstainSpec
) -> Abstention:
    """Return the least confidence under ``spec``. All arguments are by held-out row: the confidence (0: no
    label), 1 for a right label or 0, and the row's cluster."""
    sure, wrong = np.asarray(confidence), 1.0 - np.asarray(right)
    order = np.argsort(-sure, kind="stable")
    sure, wrong, clusters = sure[order], wrong[order], clusters[order]
    if len(np.unique(clusters)) == len(clusters):
        clusters = clusters[:0]  # each row counts as one observation
    point = partial(_point, sure, wrong, clusters, spec.unknown)
    curve = tuple(point(count) for count in _counts(sure))
    shown = [one for start in STARTS if (one := _walk(curve, start, spec.risk)) is not None]
    likely = shown or [one for one in curve if one.wrong <= spec.risk]
    if likely:
        chosen = max(likely, key=lambda one: one.coverage)
    else:
        chosen = min(
            curve, key=lambda one: one.bound, default=RiskPoint(least=1, coverage=0, wrong=0, bound=1)
        )
    return Abstention(
        risk=spec.risk, unknown=spec.unknown, rows=len(sure), alpha=ALPHA, chosen=chosen, shown=bool(shown),
        curve=curve,
    )  # fmt: skip


def _counts(sure: NDArray[Any]) -> list[int]:
    """Return how many of the surest rows to answer, in steps. Rows of equal confidence go together, and rows
    without a label are never answered."""
    labelled = int((sure > 0).sum())
    ends = np.append(np.nonzero(np.diff(sure[:labelled]))[0] + 1, labelled) if labelled else np.array([], int)
    wanted = np.ceil(len(sure) * np.arange(1, STEPS + 1) / STEPS)
    return sorted(
        {int(ends[min(place, len(ends) - 1)]) for place in np.searchsorted(ends, wanted)} if labelled else ()
    )


def _point(
    sure: NDArray[Any], wrong: NDArray[Any], clusters: NDArray[Any], unknown: float, count: int
) -> RiskPoint:
    answered, every = wrong[:count], float(wrong.sum())
    alpha = ALPHA / len(STARTS)
    size = min(count, effective_rows(answered, clusters[:count], alpha=alpha)) if len(clusters) else count
    share = float(answered.mean())
    high = clopper_pearson(share * size, size, alpha=alpha)[1]

    def with_unknown(share: float) -> float:
        """Return the wrong share where a part of the questions is ``unknown``. Of their answers as many are
        sent as of the wrong ones to held-out rows."""
        sent = min(1.0, share * count / max(every, 1.0))
        answers = (1 - unknown) * count / len(sure) + unknown * sent
        return ((1 - unknown) * share * count / len(sure) + unknown * sent) / answers

    return RiskPoint(
        least=float(sure[count - 1]),
        coverage=count / len(sure),
        wrong=with_unknown(share),
        bound=with_unknown(high),
    )


def _walk(curve: Sequence[RiskPoint], start: float, risk: float) -> RiskPoint | None:
    """Return the last point, from ``start`` on, before the first whose bound is above ``risk``; None: it is
    so at ``start``."""
    last = None
    for one in (one for one in curve if one.coverage >= start):
        if one.bound > risk:
            break
        last = one
    return last
