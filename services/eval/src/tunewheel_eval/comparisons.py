"""Compares the candidate with every other contestant, metric by metric, on the same rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import cast, get_args

import numpy as np
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import ComparedMetric, Comparison, Finding, MetricFacts, Role
from tunewheel_outputs.criteria import level_of
from tunewheel_outputs.metric import Metric

from tunewheel_eval.metrics import Outcomes, metric_of
from tunewheel_eval.significance import (
    Advantage,
    Clusters,
    Interval,
    Scores,
    Test,
    compare,
    figure_interval,
)


@dataclass(frozen=True)
class Measured:
    """One metric, measured for all contestants on the same rows."""

    name: str
    test: Test
    lower_is_better: bool
    lowest: float
    highest: float
    """The range of the figure; may be infinite."""
    on: str
    """``holdout``, ``regression``, or ``lm_eval.<task>``."""
    scores: Mapping[Role, Scores]
    clusters: Clusters
    unit: str = "fraction"
    repeat_spread: float = 0.0
    """How much two measurements of one model differ. No smaller difference is claimed."""
    _compared: dict[tuple[Role, float, int], Advantage] = field(
        default_factory=dict[tuple[Role, float, int], Advantage], compare=False, repr=False
    )
    """A cache of comparisons: findings and checks need the same sign flips."""

    def alpha(self, criterion: Criterion | None) -> float:
        """Return the significance level of one verdict."""
        return level_of(criterion, on_holdout=self.on == "holdout")

    def facts(self, *, repeated: bool = True) -> MetricFacts:
        """Return the facts that explain the figures. ``repeated``: the spread of repeats was measured."""
        spread = self.repeat_spread if repeated else None
        return MetricFacts(unit=self.unit, lower_is_better=self.lower_is_better, repeat_spread=spread)

    def against(self, role: Role, *, alpha: float, seed: int) -> Advantage | None:
        """Compare the candidate with the contestant ``role``; None: it was not measured."""
        if role not in self.scores or Role.CANDIDATE not in self.scores:
            return None
        if (earlier := self._compared.get((role, alpha, seed))) is not None:
            return earlier
        span = self.highest - self.lowest
        found = self._compared[role, alpha, seed] = compare(
            self.scores[Role.CANDIDATE],
            self.scores[role],
            self.clusters,
            test=self.test,
            alpha=alpha,
            lower_is_better=self.lower_is_better,
            span=span if np.isfinite(span) else None,
            seed=seed,
        )
        return found

    def figure_of(self, role: Role) -> float:
        """Return a contestant's figure, in the metric's unit."""
        return self.scores[role].figure(self.test)

    def figure(self, *, alpha: float) -> Interval:
        """Bound the candidate's own figure."""
        return figure_interval(
            self.scores[Role.CANDIDATE],
            self.clusters,
            test=self.test,
            alpha=alpha,
            lowest=self.lowest,
            highest=self.highest,
            others=[its.values for role, its in self.scores.items() if role is not Role.CANDIDATE],
        )


def measured(
    outcomes: Mapping[Role, Outcomes],
    *,
    holdout: Clusters,
    regression: Clusters,
    tasks: Mapping[str, Clusters] | None = None,
    repeat_spreads: Mapping[str, float] = MappingProxyType({}),
) -> dict[str, Measured]:
    """Return every metric that the candidate has, by name. ``holdout``, ``regression`` and ``tasks`` are the
    rows' clusters; ``tasks`` is by the value of ``on`` of an lm-eval task's metrics."""
    clusters_of = {"holdout": holdout, "regression": regression, **(tasks or {})}
    found: dict[str, Measured] = {}
    for name, candidates in outcomes[Role.CANDIDATE].by_metric.items():
        metric, scored = metric_of(name), candidates.scored
        scores = {
            role: comparable(metric, its.by_metric[name].only(scored), candidates.only(scored))
            for role, its in outcomes.items()
            if name in its.by_metric
        }
        found[name] = Measured(
            name=name,
            unit=metric.unit,
            test=metric.test,
            lower_is_better=metric.lower_is_better,
            lowest=metric.lowest,
            highest=float("inf") if metric.highest is None else metric.highest,
            on=metric.on,
            scores=scores,
            clusters=clusters_of[metric.on][scored],
            repeat_spread=repeat_spreads.get(name, 0.0),
        )
    return found


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
