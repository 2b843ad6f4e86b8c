"""The scorecard of one candidate: all contestants, tests and criteria of its evaluation."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from tunewheel_contracts.fields import ArtifactRef, FiniteFloat, Fraction, Frozen, NonNegative, Sha256, Slug
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.confidence import Abstention, Calibration
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.judge import JudgeReport
from tunewheel_contracts.formats.retrieval_scores import RetrievalScores

SCORING = 5
"""Increase this when metrics, statistics or the content of scorecards change. A run that is judged again then
gets a new scorecard, from the rows that were measured before. It is part of the id of a run whose reward the
metrics are, which the train service tells without the packages of the metrics."""
OUTCOMES = ("met", "undecided", "missed")
"""The outcomes of a criterion, from the best to the worst. The worst one of several is that of all."""
MET, UNDECIDED, MISSED = OUTCOMES


def worst_of(outcomes: Iterable[str]) -> str:
    """Return the outcome of all together; ``MET`` if there is none."""
    return max(outcomes, key=OUTCOMES.index, default=MET)


class Role(StrEnum):
    BASE = "base"
    CANDIDATE = "candidate"
    CHAMPION = "champion"


class Contestant(Frozen):
    role: Role
    model_id: str
    metrics: dict[str, FiniteFloat]
    """Figures by metric name, and the counts ``examples`` and ``regression_items``."""
    by_kind: dict[str, FiniteFloat] = {}
    """Regression accuracy by kind of item."""
    by_label: Annotated[dict[str, FiniteFloat], Field(exclude_if=operator.not_)] = {}
    """Label accuracy by label."""
    bundle: Bundle | None = None
    """The contestant's configuration."""
    cut: Annotated[int, Field(ge=0, exclude_if=operator.not_)] = 0
    """The number of its answers that ended because they could no longer be valid
    (``evaluation.stop_early``)."""
    calibration_curve: Annotated[Calibration | None, Field(exclude_if=operator.not_)] = None
    """How often its labels are right, by its confidence in them. Null: it has no labels, or too few rows."""
    calibration: Annotated[
        Calibration | None, BeforeValidator(lambda _: None), Field(exclude_if=operator.not_)
    ] = None
    """Not written and not read: earlier releases wrote it in two forms."""
    abstention: Annotated[Abstention | None, Field(exclude_if=operator.not_)] = None
    """Which of its answers are not sent. Null: as for ``calibration_curve``, or the spec does not abstain."""


ComparedMetric = Literal["valid_output", "label_accuracy", "rouge_l", "perplexity", "regression_accuracy"]
"""The metrics of the releases that read ``comparisons``; ``findings`` has all metrics."""


class Comparison(Frozen):
    """The difference of the candidate from another contestant on one metric, paired by example."""

    metric: ComparedMetric
    against: Role
    test: Literal["mcnemar_exact", "paired_bootstrap"]
    difference: FiniteFloat
    """Candidate minus other, in the metric's unit."""
    p_value: Fraction
    """One-sided: the probability of so large an advantage if there were none."""
    ci_low: FiniteFloat
    ci_high: FiniteFloat


class Finding(Frozen):
    """The difference of the candidate from another contestant on one metric, with its uncertainty.

    Names of metrics and tests are free texts, so later ones need no new field and no reader refuses them.
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
    """Number of clusters. Rows of one customer, or with nearly the same prompt, are one cluster and count as
    one observation."""


class MetricFacts(Frozen):
    """Properties of a metric, for the display of its figures."""

    unit: str
    """``fraction``, ``perplexity``, ``characters``."""
    lower_is_better: bool
    repeat_spread: FiniteFloat | None = None
    """Difference between two measurements of the same model; null: not measured."""


class Slice(Frozen):
    """The results on one part of the holdout."""

    by: str
    """The property by which the holdout was divided: ``label``, ``source``, ``length``, ``language``,
    ``group`` or ``answer in training``: whether the expected answer stands in the text of a training row."""
    value: str
    rows: int
    metric: str
    figures: dict[str, FiniteFloat]
    """Figures by role of the contestant."""
    low: Annotated[FiniteFloat | None, Field(exclude_if=lambda end: end is None)] = None
    high: Annotated[FiniteFloat | None, Field(exclude_if=lambda end: end is None)] = None
    """Interval of candidate minus champion, in the metric's unit. Together with those of all other slices by
    the same property and metric each end holds with probability .95. Null: there is no champion, or the slice
    is of another property than label, language, source and answer in training."""


class RequestedRows(Frozen):
    """The champion's and the candidate's answers to the held-out prompts that answer a request for labels.
    Neither model was trained on them. Prompts of one customer, or nearly the same ones, count as one."""

    request_id: Slug
    """The ``labels.requested``; an alarm has one."""
    metric: str
    """The metric by which an answer is right."""
    prompts: Annotated[int, Field(gt=0)]
    both_right: Annotated[int, Field(ge=0)]
    only_champion: Annotated[int, Field(ge=0)]
    """Prompts that the champion alone answers rightly; for a metric of scores: better."""
    only_candidate: Annotated[int, Field(ge=0)]


class Gain(Frozen):
    """How much better a model is than the champion, as far as this was measured."""

    difference: FiniteFloat
    """Model minus champion, as a share of questions; negative: the model is worse."""
    error: NonNegative
    """Standard error of ``difference``."""
    of: Literal["trial", "holdout"]
    """What was compared: answers to production's questions, or to the held-out rows."""


class Rival(Frozen):
    """Other answers to the same held-out questions: a cheaper model's, which show whether tuning was needed,
    or the candidate's own without the constraint of the output schema. They count in no criterion."""

    name: str
    """What it is, in words."""
    metrics: dict[str, FiniteFloat]
    """Figures by metric name."""
    rows: Annotated[int, Field(ge=0)]
    seconds: FiniteFloat | None = None
    """Seconds that the rival took; null: the rival's answers were measured with the base's."""

    def against(self, candidate: dict[str, float]) -> str:
        """Return how much of the candidate's figures it reaches, in words. A figure that the candidate lacks
        stands alone."""
        of = {name: f" of {candidate[name]:.2f}" for name in self.metrics if name in candidate}
        shown = [f"{value:.2f}{of.get(name, '')} ({name})" for name, value in self.metrics.items()]
        return f"{self.name} gets {', '.join(shown) or 'no figure'}"


class CriterionCheck(Frozen):
    criterion: Criterion
    observed: FiniteFloat | None
    passed: bool
    reason: str
    outcome: str | None = None
    """``met``, ``missed``, or ``undecided`` (the sample is too small). Null: not recorded by an earlier
    release."""
    low: FiniteFloat | None = None
    high: FiniteFloat | None = None
    """Interval of ``observed``."""
    more_examples: int | None = None
    """For an undecided check: how many additional held-out rows would be enough."""
    gain: Annotated[Gain | None, Field(exclude_if=operator.not_)] = None
    """The advantage over the champion, where a bound against the champion is on a metric that is a share."""
    of_share: Annotated[bool | None, Field(exclude_if=lambda share: share is None)] = None
    """Whether the metric is a share of questions. Null: an earlier release does not say, and nothing was
    measured."""

    @property
    def end(self) -> str:
        """The outcome, also of an earlier release."""
        return self.outcome or (MET if self.passed else MISSED)

    @property
    def is_of_share(self) -> bool:
        """Whether the metric is a share of questions. In earlier releases only perplexities were not."""
        return "perplexity" not in self.criterion.metric if self.of_share is None else self.of_share


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
    """Empty now: earlier releases wrote some of ``findings`` in this form too."""
    checks: tuple[CriterionCheck, ...]
    passed: bool
    generations: ArtifactRef | None = None
    """JSON Lines, one per held-out example: example_id, label, prompt, expected, answers by role."""
    seconds: dict[str, FiniteFloat] = {}
    field: str | None = None
    """The field to correct, with ``reason``, if the candidate could not be measured at all."""
    reason: str | None = None
    evaluation_id: Slug | None = None
    bundle: Bundle | None = None
    """The candidate's configuration, with which it is served if it passes."""
    findings: tuple[Finding, ...] = ()
    metrics: dict[str, MetricFacts] = {}
    """Properties of the metrics, by name."""
    slices: tuple[Slice, ...] = ()
    """Results on parts of the holdout, worst first."""
    looks: int | None = None
    """Number of verdicts for which these held-out rows were used, including this one."""
    left_out: dict[str, int] = {}
    """Number of held-out rows that were left out of the measurement, by reason."""
    unvalidated: Annotated[int, Field(ge=0, exclude_if=operator.not_)] = 0
    """Number of held-out answers that no expert validated. The verdict says how far models agree with
    them."""
    rows_id: Annotated[Slug | None, Field(exclude_if=operator.not_)] = None
    """The version whose held-out rows were used, if not ``dataset_id``."""
    spent: Annotated[Fraction, Field(exclude_if=operator.not_)] = 0
    """How much of a margin against the champion may be lost already, as a share of questions."""
    requested: Annotated[tuple[RequestedRows, ...], Field(exclude_if=operator.not_)] = ()
    """Results on the rows that answer requests for labels, by request."""
    rivals: Annotated[tuple[Rival, ...], Field(exclude_if=operator.not_)] = ()
    """What other answers reach on these rows: TF-IDF with a linear model, the base with the best prompt, the
    candidate in the other mode (``evaluation.other_mode``)."""
    retrieval: Annotated[RetrievalScores | None, Field(exclude_if=operator.not_)] = None
    """Results about retrieval. Null: the project has no retrieval, or there was no index."""
    judge: Annotated[JudgeReport | None, Field(exclude_if=operator.not_)] = None
    """How the judge compared the answers. Null: the project names no judge, or see ``not_judged``."""
    not_judged: Annotated[str | None, Field(exclude_if=operator.not_)] = None
    """Why ``judged`` has no figure: the judge was away or slow, or its error is not known."""
