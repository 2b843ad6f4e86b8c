"""Compares the candidate with every other contestant, metric by metric, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from tunewheel_contracts.fields import shared
from tunewheel_contracts.formats.criteria import LOOKS, Criterion
from tunewheel_contracts.formats.judge import JUDGED
from tunewheel_contracts.formats.scorecard import Finding, RequestedRows, Role
from tunewheel_outputs.metric import Metric
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Advantage, Clusters, Scores

from tunewheel_eval.metrics import Outcomes, metric_of

RIGHT = ("label_accuracy", "exact_fields", "numeric_accuracy", "set_match", JUDGED)
"""The metrics that say whether an answer is right; the first that a task has counts. A text that is more like
the expert's need not be more right."""
MOST_REQUESTS = 64
"""The most requests for labels that a verdict tells of. Any sender of examples may name requests."""


def measured(
    outcomes: Mapping[Role, Outcomes],
    *,
    holdout: Clusters,
    regression: Clusters,
    tasks: Mapping[str, Clusters] | None = None,
    repeat_spreads: Mapping[str, float] = MappingProxyType({}),
    looks: int = LOOKS,
    labels: Sequence[str | None] = (),
) -> dict[str, Measured]:
    """Return every metric that the candidate has, by name. ``holdout``, ``regression`` and ``tasks`` are the
    rows' clusters; ``tasks`` is by the value of ``on`` of an lm-eval task's metrics. ``labels``: of the
    held-out rows."""
    clusters_of = {"holdout": holdout, "regression": regression, **(tasks or {})}
    return {
        name: measured_metric(
            name, outcomes, clusters_of[metric_of(name).on], repeat_spreads.get(name, 0.0), looks, labels
        )
        for name in outcomes[Role.CANDIDATE].by_metric
    }


def measured_metric(
    name: str,
    outcomes: Mapping[Role, Outcomes],
    clusters: Clusters,
    repeat_spread: float = 0.0,
    looks: int = LOOKS,
    labels: Sequence[str | None] = (),
) -> Measured:
    """Return one metric on the rows that it says something about. ``clusters`` and ``labels`` are by row."""
    candidates, metric = outcomes[Role.CANDIDATE].by_metric[name], metric_of(name)
    scored = candidates.scored
    own = zip(labels, scored, strict=True) if metric.on == "holdout" and labels else ()
    return Measured(
        name=name,
        unit=metric.unit,
        test=metric.test,
        lower_is_better=metric.lower_is_better,
        lowest=metric.lowest,
        highest=float("inf") if metric.highest is None else metric.highest,
        on=metric.on,
        scores={
            role: comparable(metric, its.by_metric[name].only(scored), candidates.only(scored))
            for role, its in outcomes.items()
            if name in its.by_metric
        },
        clusters=clusters[scored],
        repeat_spread=repeat_spread,
        looks=looks,
        labels=tuple(label for label, counts in own if counts),
    )


def comparable(metric: Metric, scores: Scores, candidates: Scores) -> Scores:
    """Return ``scores`` per token of the candidate's tokenizer. With its own tokens, a contestant whose
    tokenizer cuts the text into more tokens would look better."""
    return Scores(scores.values, candidates.weights) if metric.per_token else scores


def findings(measured: Mapping[str, Measured], criteria: Mapping[str, Criterion], *, seed: int) -> tuple[
    Finding, ...
]:  # fmt: skip
    """Compare the candidate with every other contestant on every metric."""
    found: list[Finding] = []
    for name, metric in measured.items():
        for role in metric.scores:
            alpha = metric.alpha(criteria.get(name))
            if role is Role.CANDIDATE or (advantage := metric.against(role, alpha=alpha, seed=seed)) is None:
                continue
            found.append(_finding(metric, role, advantage))
    return tuple(found)


def signed(advantage: Advantage, *, lower_is_better: bool) -> Advantage:
    """Return ``advantage`` with difference and interval as differences of figures, in the metric's unit."""
    if not lower_is_better:
        return advantage
    return replace(advantage, difference=-advantage.difference, low=-advantage.high, high=-advantage.low)


def requested_rows(
    outcomes: Mapping[Role, Outcomes],
    compared: Mapping[str, Measured],
    requests: Sequence[str | None],
    clusters: Clusters,
) -> tuple[RequestedRows, ...]:
    """Return who is right on the held-out rows that answer a request for labels, the largest requests first.
    ``requests`` and ``clusters`` are by row. Empty: there is no champion, or no metric says who is right."""
    if Role.CHAMPION not in outcomes:
        return ()
    own, other = (outcomes[role].by_metric for role in (Role.CANDIDATE, Role.CHAMPION))
    scores = {name: (own[name].values, other[name].values) for name in own if name in other}
    if JUDGED in compared:
        values = compared[JUDGED].scores[Role.CANDIDATE].values
        scores[JUDGED] = values, 1 - values
    if (metric := next((name for name in RIGHT if name in scores), None)) is None:
        return ()
    mine, theirs = scores[metric]
    found: list[RequestedRows] = []
    for request_id in sorted({*requests} - {None}, key=str):
        rows = np.array([one == request_id for one in requests]) & ~np.isnan(mine - theirs)
        _, numbers = np.unique(clusters[rows], return_inverse=True)
        ours, champions = (np.bincount(numbers, weights=one[rows]) for one in (mine, theirs))
        equal = np.isclose(ours, champions)
        if len(ours):
            found.append(
                RequestedRows(
                    request_id=str(request_id),
                    metric=metric,
                    prompts=len(ours),
                    both_right=int((equal & (2 * ours >= np.bincount(numbers))).sum()),
                    only_champion=int((~equal & (champions > ours)).sum()),
                    only_candidate=int((~equal & (ours > champions)).sum()),
                )
            )
    return tuple(sorted(found, key=lambda one: -one.prompts)[:MOST_REQUESTS])


def _finding(metric: Measured, role: Role, advantage: Advantage) -> Finding:
    found = signed(advantage, lower_is_better=metric.lower_is_better)
    return Finding(**shared(Finding, found), metric=metric.name, against=role.value)
