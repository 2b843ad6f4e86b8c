"""The scorecard of one candidate: every contestant, every test, every criterion."""

from __future__ import annotations

import operator
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from tunewheel_contracts.fields import ArtifactRef, FiniteFloat, Fraction, Frozen, Sha256, Slug
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.criteria import Criterion, Metric
from tunewheel_contracts.formats.retrieval_scores import RetrievalScores


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
    bundle: Bundle | None = None
    """What it was made of."""


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


class Finding(Frozen):
    """Candidate against another contestant on one metric, with the uncertainty of the difference.

    Names are open: a metric or test that is added later needs no new field, and no reader refuses it.
    """

    metric: str
    against: str
    """Role of the other contestant."""
    test: str
    """How the difference was tested, such as ``mcnemar_exact`` or ``sign_flip``."""
    difference: FiniteFloat
    """Candidate minus other, in the metric's unit."""
    p_value: Fraction
    """One-sided: the probability of so large an advantage if there were none."""
    low: FiniteFloat
    high: FiniteFloat
    """Interval of ``difference``: each end holds with probability 1 - ``alpha``."""
    alpha: Fraction
    rows: int
    clusters: int
    """Groups of rows that are one observation each: one customer's, or nearly the same prompt."""


class MetricFacts(Frozen):
    """What a metric's figures mean, for whoever shows them."""

    unit: str
    """``fraction``, ``perplexity``, ``characters``."""
    lower_is_better: bool
    repeat_spread: FiniteFloat | None = None
    """How far two measurements of the same model lie apart; None: not measured."""


class Slice(Frozen):
    """One part of the holdout, and how the candidate did there."""

    by: str
    """What the holdout was divided by: ``label``, ``source``, ``length``, ``language``, ``group``."""
    value: str
    rows: int
    metric: str
    figures: dict[str, FiniteFloat]
    """By role."""


class CriterionCheck(Frozen):
    criterion: Criterion
    observed: FiniteFloat | None
    passed: bool
    reason: str
    outcome: str | None = None
    """``met``, ``missed``, or ``undecided``: the sample is too small to tell. None: nobody said."""
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    """Interval of ``observed``."""
    more_examples: int | None = None
    """How many more held-out rows would do, where it is undecided."""


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
    """JSON Lines, one per held-out example: example_id, label, prompt, expected, answers by role."""
    seconds: dict[str, FiniteFloat] = {}
    field: str | None = None
    """With ``reason``: what to mend where the candidate could not be measured at all."""
    reason: str | None = None
    evaluation_id: Slug | None = None
    bundle: Bundle | None = None
    """Of the candidate: what serves if this passes."""
    findings: tuple[Finding, ...] = ()
    metrics: dict[str, MetricFacts] = {}
    """By metric name."""
    slices: tuple[Slice, ...] = ()
    """Worst first."""
    looks: int | None = None
    """How often these held-out rows were looked at for a verdict, this time included."""
    left_out: dict[str, int] = {}
    """Held-out rows that nobody was measured on, by reason."""
    retrieval: Annotated[RetrievalScores | None, Field(exclude_if=operator.not_)] = None
    """None: the project retrieves nothing, or no index was there."""
