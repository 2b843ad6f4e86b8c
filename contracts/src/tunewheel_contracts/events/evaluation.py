"""Events of eval, and the reviews by people that it waits for."""

from __future__ import annotations

import operator
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import ArtifactRef, RelativePath, Sha256, Slug, SourceId, Text
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.judge import JudgeSpec
from tunewheel_contracts.formats.review import ReviewOutcome
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.scorecard import Contestant, CriterionCheck, RequestedRows
from tunewheel_contracts.principal import OptionalPrincipal, OptionalSignature
from tunewheel_contracts.topic import DAY_MS, TopicSpec


class _Verdict(Event):
    subject_field: ClassVar[str] = "run_id"
    identity_when_given: ClassVar[tuple[str, ...]] = ("evaluation_id",)

    project: Slug
    run_id: Slug
    dataset_id: Slug
    dataset: ArtifactRef
    adapter: AdapterRef
    scorecard: ArtifactRef
    criteria_sha256: Sha256
    contestants: tuple[Contestant, ...]
    checks: tuple[CriterionCheck, ...]
    reviewed_by: SourceId | None = None
    evaluation_id: Slug | None = None
    """Id of the evaluation. A run can be evaluated several times, against different champions."""
    bundle: Bundle | None = None
    """The configuration with which the candidate was judged."""
    review: ReviewOutcome | None = None
    """The result of the review by people."""
    requested: Annotated[tuple[RequestedRows, ...], Field(exclude_if=operator.not_)] = ()
    """Who is right on held-out rows that answer requests for labels: whether the candidate mends what an
    alarm was about."""


BEHIND_THE_REVIEW = (
    "Principal of the review behind this verdict; ``reviewed_by`` is the reviewer's own signature."
)


class EvalPassed(_Verdict):
    """The candidate meets every criterion, and people approved it if a review was required."""

    type: ClassVar[str] = "eval.passed"

    principal: OptionalPrincipal = Field(default=None, description=BEHIND_THE_REVIEW)


class EvalFailed(_Verdict):
    """The candidate misses a criterion, or a person rejected it. Final for that version."""

    type: ClassVar[str] = "eval.failed"

    reasons: Annotated[tuple[str, ...], Field(min_length=1)]
    field: str | None = None
    """The field to correct if the candidate could not be measured; ``review`` after a person's rejection."""
    principal: OptionalPrincipal = Field(default=None, description=BEHIND_THE_REVIEW)


class EvalUndecided(_Verdict):
    """The measurements do not show whether the candidate is good enough."""

    type: ClassVar[str] = "eval.undecided"

    reasons: Annotated[tuple[str, ...], Field(min_length=1)]
    field: str | None = None
    """The field to correct; ``holdout`` if its rows were used for too many verdicts."""
    more_examples: Annotated[int, Field(gt=0)] | None = None
    """How many additional held-out rows would be enough for a verdict."""
    moves_model: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """The registry moves a model without an earlier verdict to the stage ``undecided``. False: written by an
    earlier release, after which such a model stayed ``registered``."""


class EvalRequested(Event):
    """Requests another evaluation of a run: against a later champion, by other criteria, or by the held-out
    rows of another version."""

    type: ClassVar[str] = "eval.requested"
    subject_field: ClassVar[str] = "run_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("against", "criteria", "request")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal", "dataset_id")

    project: Slug
    run_id: Slug
    against: Slug | None = None
    """The champion to compare with. Null: the model in production when eval reads the request."""
    criteria: tuple[Criterion, ...] = ()
    """Criteria other than those declared before the training. The scorecard then informs and gives no
    verdict."""
    request: Annotated[str, Field(min_length=1, max_length=256)]
    """Distinguishes repeated requests: the id of the causing event, or a text chosen by a person."""
    reason: Text = ""
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None
    dataset_id: Annotated[Slug | None, Field(exclude_if=lambda name: name is None)] = None
    """The version whose held-out rows are used, without those that the run trained on. Null: the newest
    version's where a person asks, the run's own version's where the registry asks."""


class ReviewRequested(_Verdict):
    """The automated checks are done; people must decide."""

    type: ClassVar[str] = "review.requested"

    review_id: Slug | None = None
    review_set: ArtifactRef | None = None
    """The ``ReviewSet`` to answer. Null: only a verdict on the scorecard is required."""
    items: int | None = None
    reviewers: int | None = None
    """How many people should answer the review."""


class ReviewAnswered(Event):
    """A person judged one item of a review set. A later answer of the same person to the item replaces it."""

    type: ClassVar[str] = "review.answered"
    subject_field: ClassVar[str] = "review_id"
    identity_fields: ClassVar[tuple[str, ...]] = (
        "item_id", "reviewer", "revision", "preference", "reasons", "corrected"
    )  # fmt: skip
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal",)

    project: Slug
    run_id: Slug
    review_id: Slug
    item_id: Slug
    reviewer: SourceId
    revision: Annotated[int, Field(ge=1)] = 1
    """Number of this person's answers to this item, including this one."""
    preference: str
    """The candidate's answer is ``better``, ``same`` or ``worse``. The reviewer did not know which answer was
    the candidate's."""
    reasons: Annotated[tuple[SourceId, ...], Field(max_length=16)] = ()
    corrected: Text | None = None
    """The answer that would have been correct."""
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None


class ReviewSubmitted(Event):
    """A person's decision on a run. A rejection is final for that version."""

    type: ClassVar[str] = "review.submitted"
    subject_field: ClassVar[str] = "run_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("reviewer", "verdict")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal", "review_id")

    project: Slug
    run_id: Slug
    reviewer: SourceId
    verdict: Literal["approved", "rejected"]
    comment: Text = ""
    review_id: Slug | None = None
    """The review set that was answered; null: only a verdict was given."""
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None


class ComparisonsRequested(Event):
    """The candidate of a shadow stage and the champion answered the same questions differently. People, or a
    judge, should say which answers are better. The request grows while the trial runs: each ``revision``
    names all pairs of the previous one, and more."""

    type: ClassVar[str] = "comparisons.requested"
    subject_field: ClassVar[str] = "request_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("revision",)

    project: Slug
    request_id: Slug
    """Derived from the model, the stage and the generation. A trial has one request."""
    model_id: Slug
    """The candidate."""
    against: str
    """The champion, or the base model."""
    stage: Literal["shadow", "canary"]
    revision: Annotated[int, Field(gt=0)]
    """The event with the highest revision of a request replaces the others."""
    completion_ids: Annotated[tuple[SourceId, ...], Field(max_length=200)]
    """The champion's completions, in the order in which they were drawn."""
    pairs: Annotated[tuple[RelativePath, ...], Field(max_length=200)] = ()
    """JSON in the object store, one file for each revision: the redacted questions with both answers
    (``LabelPrompts`` whose items have a ``candidate``). An erasure empties the items that it covers. If a
    file is missing, the log held no texts of its pairs."""
    judge: Annotated[JudgeSpec | None, Field(exclude_if=operator.not_)] = None
    """The judge of the project's spec, which compares the pairs too."""
    for_people: Annotated[int | None, Field(ge=0, exclude_if=lambda count: count is None)] = None
    """How many pairs, from the first on, people are asked about. What the judge says of the others may be
    used up, and a person's answer could not count any more. Null: all."""

    @property
    def items(self) -> int:
        """The number of pairs that people are asked about."""
        return len(self.completion_ids[: self.for_people])


class AnswersCompared(Event):
    """A person or a judge compared the candidate's and the champion's answer to one question. The first
    answer of a person to a pair counts, and the first of a judge."""

    type: ClassVar[str] = "answers.compared"
    subject_field: ClassVar[str] = "completion_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("request_id", "preference", "reviewer", "judge")

    project: Slug
    request_id: Slug
    model_id: Slug
    """The candidate."""
    completion_id: SourceId
    """The champion's completion, as ``comparisons.requested`` names it."""
    preference: Literal["better", "same", "worse"]
    """The candidate's answer is ``better``, ``same`` or ``worse``. Nobody who compared knew which answer was
    the candidate's."""
    reviewer: SourceId | None = None
    """The person; null: a judge compared."""
    judge: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """Hash of the judge; null: a person compared."""
    principal: OptionalPrincipal = None
    signature: OptionalSignature = None


EVAL_PASSED = TopicSpec(
    EvalPassed,
    ("eval",),
    ("curate", "registry", "monitor"),
    1,
    replayed_by=("curate", "monitor"),
)
EVAL_FAILED = TopicSpec(
    EvalFailed,
    ("eval",),
    ("curate", "registry", "monitor"),
    1,
    replayed_by=("curate", "monitor"),
)
EVAL_UNDECIDED = TopicSpec(
    EvalUndecided,
    ("eval",),
    ("curate", "registry", "monitor"),
    1,
    replayed_by=("curate", "monitor"),
)
EVAL_REQUESTED = TopicSpec(
    EvalRequested,
    ("registry", "console"),
    ("eval", "registry"),
    4,
    replayed_by=("registry",),
)
REVIEW_REQUESTED = TopicSpec(
    ReviewRequested,
    ("eval",),
    ("curate", "eval", "registry", "monitor"),
    1,
    replayed_by=("curate", "registry", "monitor"),
)
REVIEW_ANSWERED = TopicSpec(ReviewAnswered, ("console",), ("eval", "registry"), 1, replayed_by=("registry",))
REVIEW_SUBMITTED = TopicSpec(
    ReviewSubmitted, ("console",), ("eval", "registry"), 1, replayed_by=("registry",)
)
COMPARISONS_REQUESTED = TopicSpec(ComparisonsRequested, ("monitor",), ("eval",), 1, retention_ms=30 * DAY_MS)
ANSWERS_COMPARED = TopicSpec(AnswersCompared, ("console", "eval"), ("monitor",), 1, retention_ms=30 * DAY_MS)
