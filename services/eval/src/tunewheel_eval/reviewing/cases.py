"""What the store holds of a review. Everything is created once; only an erasure takes text out again.

| path below ``reviews/`` | holds |
|---|---|
| ``<review_id>.json`` | the ``ReviewSet`` |
| ``<review_id>/case.json`` | what was asked, and by which rule it is decided |
| ``<review_id>/submitted/<person>.json`` | what one person decided, with their answers at that moment |
| ``<review_id>/decided.json`` | what the people asked for decided together |
| ``<review_id>/rejected.json`` | the rejection that ended it |
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
    """The items of the set as it was drawn: an erasure may have taken some since."""
    missed: tuple[str, ...] = ()
    """Metrics of the criteria that the candidate does not meet: an approval overrides them."""

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
    """The submission that decided: the last that was needed, or the rejection."""
    passed: bool
    outcome: ReviewOutcome | None
    field: str | None = None
    reasons: tuple[str, ...] = ()
    """Why it did not pass."""


def review_id_of(project: str, run_id: str) -> str:
    """Name the review of a run: a run is reviewed once, however often it is evaluated."""
    return content_id("review", {"project": project, "run_id": run_id})


def person_of(said: ReviewSubmitted | ReviewAnswered) -> str:
    """Name whoever said it, safe as a path: by the principal, who is known, else as they sign."""
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
    """Reads and keeps what belongs to reviews."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def open(self, drawn: ReviewSet) -> tuple[ReviewSet, ArtifactRef]:
        """Keep the set that was drawn, or return the one that was drawn first."""
        path = set_path(drawn.review_id)
        data = await self._store.first(path, drawn.model_dump_json(indent=1).encode())
        ref = ArtifactRef(path=path, sha256=content_sha256(data), size_bytes=len(data))
        return ReviewSet.model_validate_json(data), ref

    async def read_set(self, review_id: str) -> ReviewSet | None:
        """Return the set as it is now; None where all of its examples were erased."""
        return await self._read(set_path(review_id), ReviewSet)

    async def keep(self, case: ReviewCase) -> ReviewCase:
        """Keep ``case``, or return the one that was kept first."""
        return await self._first(case_path(case.review_id), case)

    async def read(self, review_id: str) -> ReviewCase | None:
        return await self._read(case_path(review_id), ReviewCase)

    async def submission(self, review_id: str, person: str) -> Submission | None:
        return await self._read(f"{submissions_folder(review_id)}/{person}.json", Submission)

    async def submit(self, review_id: str, submission: Submission) -> Submission:
        """Keep what a person decided, or return what they decided first."""
        return await self._first(submission_path(review_id, submission.review), submission)

    async def submissions(self, review_id: str) -> Sequence[Submission]:
        """Return what everybody decided, in an order that does not depend on who came first."""
        paths = await self._store.list(submissions_folder(review_id))
        found = [await self._read(path, Submission) for path in paths]
        return [one for one in found if one is not None]

    async def decision(self, review_id: str) -> Decision | None:
        return await self._read(_decision_path(review_id, rejected=False), Decision)

    async def rejection(self, review_id: str) -> Decision | None:
        return await self._read(_decision_path(review_id, rejected=True), Decision)

    async def decide(self, review_id: str, decision: Decision) -> Decision:
        """Keep a decision, or return the first of its kind."""
        rejected = decision.decided_by.verdict == "rejected"
        return await self._first(_decision_path(review_id, rejected=rejected), decision)

    async def _first(self, path: str, value: M) -> M:
        data = await self._store.first(path, value.model_dump_json(indent=1).encode())
        return type(value).model_validate_json(data)

    async def _read(self, path: str, model: type[M]) -> M | None:
        data = await self._store.read(path)
        return model.model_validate_json(data) if data is not None else None


def submission_path(review_id: str, review: ReviewSubmitted) -> str:
    return f"{submissions_folder(review_id)}/{person_of(review)}.json"


def _decision_path(review_id: str, *, rejected: bool) -> str:
    return f"{FOLDER}/{review_id}/{'rejected' if rejected else 'decided'}.json"
