"""The files of a review in the store. Each is written once; only an erasure changes one later.

| path below ``reviews/`` | content |
|---|---|
| ``<review_id>.json`` | the ``ReviewSet`` |
| ``<review_id>/case.json`` | the question to the reviewers, and the rule by which it is decided |
| ``<review_id>/submitted/<person>.json`` | one person's decision, with their answers at that moment |
| ``<review_id>/decided.json`` | the common decision of the required reviewers |
| ``<review_id>/rejected.json`` | the rejection that ended the review |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from pydantic import BaseModel
from tunewheel_contracts.events.evaluation import ReviewAnswered, ReviewRequested, ReviewSubmitted
from tunewheel_contracts.fields import ArtifactRef, Frozen
from tunewheel_contracts.formats.review import ReviewOutcome, ReviewSet
from tunewheel_contracts.formats.spec import ReviewSpec
from tunewheel_contracts.identity import content_id, content_sha256
from tunewheel_runtime.store import ObjectStore

M = TypeVar("M", bound=BaseModel)
FOLDER = "reviews"


class ReviewCase(Frozen):
    """``case.json``."""

    requested: ReviewRequested
    rule: ReviewSpec
    drawn: tuple[str, ...]
    """The number of items when the set was drawn. An erasure may have removed some since."""
    strata: tuple[str, ...] = ()
    """The stratum of each of ``drawn``; empty: an earlier release drew it, and every item weighs the same."""
    sizes: dict[str, int] = {}
    """By stratum, how many held-out prompts it has."""
    equal: int = 0
    """How many held-out prompts got two equal answers. They are not shown, and count as ties."""
    missed: tuple[str, ...] = ()
    """The metrics of the criteria that the candidate misses. An approval overrides them."""

    @property
    def review_id(self) -> str:
        return review_id_of(self.requested.project, self.requested.run_id)


class Submission(Frozen):
    """``submitted/<person>.json``."""

    review: ReviewSubmitted
    answers: tuple[ReviewAnswered, ...]


class Decision(Frozen):
    """``decided.json`` or ``rejected.json``."""

    decided_by: ReviewSubmitted
    """The submission that decided: the last required approval, or the rejection."""
    passed: bool
    outcome: ReviewOutcome | None
    field: str | None = None
    reasons: tuple[str, ...] = ()
    """Why it did not pass."""


def review_id_of(project: str, run_id: str) -> str:
    """Return the id of a run's review. A run has one review, even if it is evaluated several times."""
    return content_id("review", {"project": project, "run_id": run_id})


def person_of(said: ReviewSubmitted | ReviewAnswered) -> str:
    """Return the person's name in a form that is safe in a path: the principal, or else the name as
    signed."""
    who = said.principal
    cause = {"reviewer": said.reviewer} if who is None else {"issuer": who.issuer, "name": who.name}
    return content_id("person", cause)


def set_path(review_id: str) -> str:
    return f"{FOLDER}/{review_id}.json"


def case_path(review_id: str) -> str:
    return f"{FOLDER}/{review_id}/case.json"


def submissions_folder(review_id: str) -> str:
    return f"{FOLDER}/{review_id}/submitted"


class Cases:
    """Reads and writes the files of reviews."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def open(self, drawn: ReviewSet) -> tuple[ReviewSet, ArtifactRef]:
        """Store the drawn set, or return the one that was stored first."""
        path = set_path(drawn.review_id)
        data = await self._store.first(path, drawn.model_dump_json(indent=1).encode())
        ref = ArtifactRef(path=path, sha256=content_sha256(data), size_bytes=len(data))
        return ReviewSet.model_validate_json(data), ref

    async def read_set(self, review_id: str) -> ReviewSet | None:
        """Return the set as it is now; None: all its examples were erased."""
        return await self._store.document(set_path(review_id), ReviewSet)

    async def keep(self, case: ReviewCase) -> ReviewCase:
        """Store ``case``, or return the one that was stored first."""
        return await self._store.first_document(case_path(case.review_id), case)

    async def read(self, review_id: str) -> ReviewCase | None:
        return await self._store.document(case_path(review_id), ReviewCase)

    async def submission(self, review_id: str, person: str) -> Submission | None:
        return await self._store.document(f"{submissions_folder(review_id)}/{person}.json", Submission)

    async def submit(self, review_id: str, submission: Submission) -> Submission:
        """Store a person's submission, or return their first one."""
        return await self._store.first_document(submission_path(review_id, submission.review), submission)

    async def submissions(self, review_id: str) -> Sequence[Submission]:
        """Return all submissions, in an order that does not depend on their time."""
        paths = await self._store.list(submissions_folder(review_id))
        found = [await self._store.document(path, Submission) for path in paths]
        return [one for one in found if one is not None]

    async def decision(self, review_id: str) -> Decision | None:
        return await self._store.document(_decision_path(review_id, rejected=False), Decision)

    async def rejection(self, review_id: str) -> Decision | None:
        return await self._store.document(_decision_path(review_id, rejected=True), Decision)

    async def decide(self, review_id: str, decision: Decision) -> Decision:
        """Store a decision, or return the first one of its kind."""
        rejected = decision.decided_by.verdict == "rejected"
        return await self._store.first_document(_decision_path(review_id, rejected=rejected), decision)


def submission_path(review_id: str, review: ReviewSubmitted) -> str:
    return f"{submissions_folder(review_id)}/{person_of(review)}.json"


def _decision_path(review_id: str, *, rejected: bool) -> str:
    return f"{FOLDER}/{review_id}/{'rejected' if rejected else 'decided'}.json"
