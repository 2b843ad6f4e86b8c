"""The HTTP API of reviews of answers, for programs. It tells a reviewer the sides only after submission."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from pydantic import Field
from tunewheel_contracts.fields import SourceId, Strict, Text
from tunewheel_contracts.formats.review_assignment import Choice
from tunewheel_runtime.identity.guard import caller_of, needs
from tunewheel_runtime.identity.roles import Role

from tunewheel_console.control.resolving import reviewer_of
from tunewheel_console.queues import Review
from tunewheel_console.reviewing import ItemAnswer, Reviewing, Sitting
from tunewheel_console.state import ConsoleState

Reviewer = Annotated[SourceId | None, Query(description="Who answers, where identity is open.")]
REVIEWS = "/v1/projects/{project}/reviews"


class Answer(Strict):
    """The body of an answer."""

    choice: Choice
    reasons: Annotated[tuple[SourceId, ...], Field(max_length=16)] = ()
    corrected: Text | None = None


class Submission(Strict):
    """The body of a submission."""

    verdict: Literal["approved", "rejected"]
    comment: Text = ""


def add_review_routes(api: FastAPI, state: ConsoleState, reviewing: Reviewing) -> None:
    """Add the routes, all for the role reviewer.

    Refusals name the field. Status 404: the review is unknown, or the item is not the caller's. 410: the item
    was erased. 409: the caller has submitted the review, the review has ended, or items are not answered.
    422: a value is invalid. 503: the broker or the store is away, and nothing is kept.
    """

    @api.get(REVIEWS)
    @needs(Role.REVIEWER)
    async def list_reviews(request: Request, project: str, reviewer: Reviewer = None) -> dict[str, Any]:
        """The reviews that wait for the caller, are submitted, or have ended."""
        who = reviewer_of(caller_of(request), reviewer)
        view = state.projects.get(project)
        found = view.reviews.by_id.items() if view else ()
        listed = [told_of(review_id, one, who) for review_id, one in found if one.request is not None]
        return {"project": project, "reviewer": who, "reviews": listed}

    @api.get(f"{REVIEWS}/{{review_id}}")
    @needs(Role.REVIEWER)
    async def show_review(
        request: Request, project: str, review_id: str, reviewer: Reviewer = None
    ) -> dict[str, Any]:
        """One review, which the caller hereby opens, with the caller's items."""
        return progress(await _open(request, project, review_id, reviewer))

    @api.get(f"{REVIEWS}/{{review_id}}/items/{{number}}")
    @needs(Role.REVIEWER)
    async def show_review_item(
        request: Request, project: str, review_id: str, number: int, reviewer: Reviewer = None
    ) -> dict[str, Any]:
        """One prompt with two answers. Nothing says which model wrote which."""
        return _shown(await _open(request, project, review_id, reviewer), number)

    @api.put(f"{REVIEWS}/{{review_id}}/items/{{number}}/answer")
    @needs(Role.REVIEWER)
    async def answer_review(
        request: Request, project: str, review_id: str, number: int, body: Answer, reviewer: Reviewer = None
    ) -> dict[str, Any]:
        """Say which answer is better, and why. Another choice replaces this one."""
        sitting = await _open(request, project, review_id, reviewer)
        answered = ItemAnswer(body.choice, body.reasons, body.corrected)
        await reviewing.answer(sitting, number, answered, caller_of(request))
        return progress(sitting) | {"number": number}

    @api.post(f"{REVIEWS}/{{review_id}}/submit", status_code=HTTPStatus.CREATED)
    @needs(Role.REVIEWER)
    async def submit_review(
        request: Request, project: str, review_id: str, body: Submission, reviewer: Reviewer = None
    ) -> dict[str, Any]:
        """Give the last word. From then on the caller knows which model wrote which. ``review_id`` may be the
        id of a run that waits for a word on its scorecard alone."""
        view = state.projects.get(project)
        waits = next((run for run in view.pending_reviews if run.run_id == review_id), None) if view else None
        if waits is not None and waits.asked is not None:
            caller = caller_of(request)
            await reviewing.actions.review(
                waits.asked, reviewer=reviewer_of(caller, reviewer), principal=caller.principal,
                verdict=body.verdict, comment=body.comment,
            )  # fmt: skip
            return {
                "review_id": review_id, "state": "submitted", "outcome": None, "verdict": body.verdict,
                "requested_at": waits.asked.time.isoformat(), "items": 0, "reviewers": 1, "answered": 0,
                "takes_verdict": True, "submitted": 1,
            }  # fmt: skip
        sitting = await _open(request, project, review_id, reviewer)
        await reviewing.submit(sitting, body.verdict, body.comment, caller_of(request))
        return progress(sitting)

    async def _open(request: Request, project: str, review_id: str, reviewer: str | None) -> Sitting:
        return await reviewing.open(project, review_id, reviewer_of(caller_of(request), reviewer))


def told_of(review_id: str, review: Review, reviewer: str) -> dict[str, Any]:
    """Return what ``reviewer`` may know about a review before opening it."""
    assert review.request is not None
    mine = review.submission_of(reviewer)
    return {
        "review_id": review_id,
        "state": "ended" if review.outcome else "submitted" if mine else "waiting",
        "outcome": review.outcome,
        "requested_at": review.request.time.isoformat(),
        "items": review.request.data.items,
        "reviewers": review.people,
        "takes_verdict": review.comparisons is None,
        "submitted": len(review.submitters),
        "answered": review.preferences_of(reviewer).total(),
        "verdict": mine.verdict if mine else None,
    }


def progress(sitting: Sitting) -> dict[str, Any]:
    """Return a person's progress. Once they are done, it includes their preferences by model."""
    figures = told_of(sitting.review_id, sitting.review, sitting.reviewer)
    following = None if sitting.is_over else sitting.first_unanswered
    figures |= {"items": len(sitting.numbers), "answered": sitting.answered, "next": following}
    if sitting.is_over:
        figures["revealed"] = {
            "run_id": sitting.set.run_id,
            "candidate": sitting.set.candidate_id,
            "other": sitting.set.other_id,
            "candidate_is": [
                pair and ("left" if pair.candidate_is_left else "right") for pair in sitting.pairs
            ],
            "preferences": dict(sitting.review.preferences_of(sitting.reviewer)),
        }
    return figures


def _shown(sitting: Sitting, number: int) -> dict[str, Any]:
    pair, answer = sitting.pair(number), sitting.answer_to(number)
    return {
        "number": number,
        "of": len(sitting.pairs),
        "messages": [message.model_dump(mode="json") for message in pair.item.messages],
        "left": pair.left,
        "right": pair.right,
        "expected": pair.item.expected,
        "answer": answer
        and {"choice": answer.choice, "reasons": list(answer.reasons), "corrected": answer.corrected},
    }
