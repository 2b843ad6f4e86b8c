"""What eval produces, and the human verdict it waits for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import ArtifactRef, Sha256, Slug, SourceId, Text
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.review import ReviewOutcome
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.scorecard import Contestant, CriterionCheck
from tunewheel_contracts.principal import OptionalPrincipal


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
    """Which evaluation of the run this is of: a run can be judged again, against another champion."""
    bundle: Bundle | None = None
    """What was judged of the candidate."""
    review: ReviewOutcome | None = None
    """What reviewers said, side by side with the checks."""


BEHIND_THE_REVIEW = "Who gave the review that this verdict rests on; ``reviewed_by`` is how they sign."


class EvalPassed(_Verdict):
    """The candidate meets every criterion (and, where asked for, a person agreed)."""

    type: ClassVar[str] = "eval.passed"

    principal: OptionalPrincipal = Field(default=None, description=BEHIND_THE_REVIEW)


class EvalFailed(_Verdict):
    """The candidate misses a criterion or was rejected by a person; final for that version."""

    type: ClassVar[str] = "eval.failed"

    reasons: Annotated[tuple[str, ...], Field(min_length=1)]
    field: str | None = None
    """What to mend where the candidate could not be measured, or ``review`` after a person's rejection."""
    principal: OptionalPrincipal = Field(default=None, description=BEHIND_THE_REVIEW)


class EvalUndecided(_Verdict):
    """What was measured cannot tell whether the candidate is good enough. Nothing changes; the model stays
    where it is."""

    type: ClassVar[str] = "eval.undecided"

    reasons: Annotated[tuple[str, ...], Field(min_length=1)]
    field: str | None = None
    """What to mend: ``holdout`` where its rows were looked at too often."""
    more_examples: Annotated[int, Field(gt=0)] | None = None
    """How many more held-out rows would do."""


class EvalRequested(Event):
    """A run is to be judged again: against a champion that came later, or by other criteria."""

    type: ClassVar[str] = "eval.requested"
    subject_field: ClassVar[str] = "run_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("against", "criteria", "request")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal",)

    project: Slug
    run_id: Slug
    against: Slug | None = None
    """The champion to compare with; None: whoever is in production when eval reads this."""
    criteria: tuple[Criterion, ...] = ()
    """Other criteria than those of before the training: the scorecard informs, and decides nothing."""
    request: Annotated[str, Field(min_length=1, max_length=256)]
    """Tells repeated requests apart: the id of the event that led to it, or a person's own."""
    reason: Text = ""
    principal: OptionalPrincipal = None


class ReviewRequested(_Verdict):
    """The automated part is done; people decide."""

    type: ClassVar[str] = "review.requested"

    review_id: Slug | None = None
    review_set: ArtifactRef | None = None
    """The ``ReviewSet`` to answer; None: a verdict on the scorecard is all that is asked."""
    items: int | None = None
    reviewers: int | None = None
    """How many people are to answer it."""


class ReviewAnswered(Event):
    """A person judged one item of a review set. A later answer of theirs to the same item replaces it."""

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
    """Counts this person's answers to this item."""
    preference: str
    """Of the candidate: ``better``, ``same`` or ``worse``. The reviewer did not know which one it was."""
    reasons: Annotated[tuple[SourceId, ...], Field(max_length=16)] = ()
    corrected: Text | None = None
    """What should have been answered."""
    principal: OptionalPrincipal = None


class ReviewSubmitted(Event):
    """What a person decided on a run; a rejection is final for that version."""

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
    """The review set that was answered; None: the verdict alone."""
    principal: OptionalPrincipal = None
