"""The scorecard of one candidate: every contestant, every test, every criterion."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from tunewheel_contracts.fields import ArtifactRef, FiniteFloat, Fraction, Frozen, Sha256, Slug
from tunewheel_contracts.formats.criteria import Criterion, Metric


class Role(StrEnum):
    BASE = "base"
    CANDIDATE = "candidate"
    CHAMPION = "champion"


class Contestant(Frozen):
    role: Role
    model_id: str
    metrics: dict[str, FiniteFloat]
    """By metric name (``Metric``), plus ``examples`` and ``regression_items``, their counts."""
    by_kind: dict[str, FiniteFloat] = {}
    """Regression accuracy by kind of item."""


class Comparison(Frozen):
    """Candidate against another contestant on one metric, paired by example."""

    metric: Metric
    against: Role
    test: Literal["mcnemar_exact", "paired_bootstrap"]
    difference: FiniteFloat
    """Candidate minus other, in the metric's unit."""
    p_value: Fraction
    """One-sided: the probability of so large an advantage if there were none."""
    ci_low: FiniteFloat
    ci_high: FiniteFloat


class CriterionCheck(Frozen):
    criterion: Criterion
    observed: FiniteFloat | None
    passed: bool
    reason: str


class Scorecard(Frozen):
    """``scorecards/<scorecard_id>.json``."""

    scorecard_id: Slug
    project: Slug
    run_id: Slug
    model_id: Slug
    dataset_id: Slug
    criteria_sha256: Sha256
    contestants: tuple[Contestant, ...]
    comparisons: tuple[Comparison, ...]
    checks: tuple[CriterionCheck, ...]
    passed: bool
    generations: ArtifactRef | None = None
    """JSON Lines: example_id, role, prompt, expected, output."""
    seconds: dict[str, FiniteFloat] = {}
    field: str | None = None
    """With ``reason``: what to mend where the candidate could not be measured at all."""
    reason: str | None = None
