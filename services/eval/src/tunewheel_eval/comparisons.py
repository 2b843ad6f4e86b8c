"""Compares the candidate with every other contestant, metric by metric, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import cast, get_args

from tunewheel_contracts.formats.criteria import LOOKS, Criterion
from tunewheel_contracts.formats.scorecard import ComparedMetric, Comparison, Finding, Role
from tunewheel_outputs.metric import Metric
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Advantage, Clusters, Scores

from tunewheel_eval.metrics import Outcomes, metric_of


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


def signed(advantage: Advantage, *, lower_is_better: bool) -> tuple[float, float, float]:
    """Return an advantage and the ends of its interval as differences of figures, in the metric's unit."""
    ends = (advantage.low, advantage.high)
    return (-advantage.difference, -ends[1], -ends[0]) if lower_is_better else (advantage.difference, *ends)


def comparisons(findings: tuple[Finding, ...]) -> tuple[Comparison, ...]:
    """Return the findings in the form that readers of earlier releases understand."""
    return tuple(
        Comparison(
            metric=cast("ComparedMetric", one.metric),
            against=Role(one.against),
            test="mcnemar_exact",
            difference=one.difference,
            p_value=one.p_value,
            ci_low=one.low,
            ci_high=one.high,
        )
        for one in findings
        if one.test == "mcnemar_exact" and one.metric in get_args(ComparedMetric)
    )


def _finding(metric: Measured, role: Role, advantage: Advantage) -> Finding:
    difference, low, high = signed(advantage, lower_is_better=metric.lower_is_better)
    return Finding(
        metric=metric.name,
        against=role.value,
        test=advantage.test,
        difference=difference,
        p_value=advantage.p_value,
        low=low,
        high=high,
        alpha=advantage.alpha,
        rows=advantage.rows,
        clusters=advantage.clusters,
    )
