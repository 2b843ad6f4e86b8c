"""What eval produces, and the human verdict it waits for."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunewheel_contracts.event import Event
from tunewheel_contracts.fields import ArtifactRef, Sha256, Slug, SourceId, Text
from tunewheel_contracts.formats.run import AdapterRef
from tunewheel_contracts.formats.scorecard import Contestant, CriterionCheck
from tunewheel_contracts.principal import OptionalPrincipal


class _Verdict(Event):
    subject_field: ClassVar[str] = "run_id"

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


class ReviewRequested(_Verdict):
    """The automated part passed; a person decides."""

    type: ClassVar[str] = "review.requested"


class ReviewSubmitted(Event):
    """What a person decided on a run; a rejection is final for that version."""

    type: ClassVar[str] = "review.submitted"
    subject_field: ClassVar[str] = "run_id"
    identity_fields: ClassVar[tuple[str, ...]] = ("reviewer", "verdict")
    identity_when_given: ClassVar[tuple[str, ...]] = ("principal",)

    project: Slug
    run_id: Slug
    reviewer: SourceId
    verdict: Literal["approved", "rejected"]
    comment: Text = ""
    principal: OptionalPrincipal = None
