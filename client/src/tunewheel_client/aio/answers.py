"""What people answer: requests for labels, and reviews."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from tunewheel_contracts.api.labels import (
    LabelContext,
    LabelItem,
    LabelOutput,
    LabelProgress,
    LabelRequestDetail,
    LabelRequests,
)
from tunewheel_contracts.api.reviews import ReviewItem, ReviewProgress, Reviews

from tunewheel_client.aio.resource import Resource


class Labels(Resource):
    """Requests for labels: questions of an alarm that wait for an expert's answer."""

    async def list(self, project: str) -> LabelRequests:
        """Return all requests of a project, without their questions."""
        return await self._read(LabelRequests, project, "labels")

    async def show(self, project: str, request_id: str, *, reviewer: str | None = None) -> LabelRequestDetail:
        """Return a request with the states of its items and the fields of an answer."""
        return await self._read(LabelRequestDetail, project, "labels", request_id, reviewer=reviewer)

    async def item(
        self, project: str, request_id: str, number: int, *, reviewer: str | None = None
    ) -> LabelItem:
        """Return one question and the model's answer. Items count from 1. Other people are offered the item
        last for five minutes."""
        return await self._read(
            LabelItem, project, "labels", request_id, "items", str(number), reviewer=reviewer
        )

    async def context(self, project: str, request_id: str, number: int) -> LabelContext:
        """Return similar questions with experts' answers, and what to search the documents for."""
        return await self._read(LabelContext, project, "labels", request_id, "items", str(number), "context")

    async def answer(
        self,
        project: str,
        request_id: str,
        number: int,
        output: LabelOutput | None = None,
        *,
        out_of_scope: bool = False,
        reviewer: str | None = None,
        answered_at: str | None = None,
        seen: str | None = None,
        also: Sequence[int] = (),
    ) -> LabelProgress:
        """Answer one question by ``output`` in the task's form, or say that it is out of scope.

        Args:
            reviewer: who answers, where the wheel asks nobody who calls.
            answered_at: when the answer was given (RFC 3339), if not now. It replaces no later answer.
            seen: the ``version`` of the item as it was read. An answer that somebody gave since stays.
            also: other items of the same topic that get the same answer.

        Raises:
            Refused: the answer does not have the task's form, or the item has a newer answer.
        """
        body: dict[str, Any] = {"out_of_scope": True} if out_of_scope else {"output": output}
        body |= {"answered_at": answered_at} if answered_at else {}
        body |= {"seen": seen} if seen else {}
        body |= {"also": list(also)} if also else {}
        return await self._send(
            LabelProgress, "PUT", project, "labels", request_id, "items", str(number), "answer",
            json=body, query={"reviewer": reviewer},
        )  # fmt: skip


class ReviewsOfAnswers(Resource):
    """Reviews: people compare two answers to a question without knowing whose is whose.

    ``reviewer`` says who answers, where the wheel asks nobody who calls.
    """

    async def list(self, project: str, *, reviewer: str | None = None) -> Reviews:
        """Return all reviews of a project."""
        return await self._read(Reviews, project, "reviews", reviewer=reviewer)

    async def show(self, project: str, review_id: str, *, reviewer: str | None = None) -> ReviewProgress:
        """Return the caller's progress; after submission also whose answers were whose."""
        return await self._read(ReviewProgress, project, "reviews", review_id, reviewer=reviewer)

    async def item(
        self, project: str, review_id: str, number: int, *, reviewer: str | None = None
    ) -> ReviewItem:
        """Return one question with its two answers. Items count from 1."""
        return await self._read(
            ReviewItem, project, "reviews", review_id, "items", str(number), reviewer=reviewer
        )

    async def answer(
        self,
        project: str,
        review_id: str,
        number: int,
        choice: Literal["left", "same", "right"],
        *,
        reasons: Sequence[str] = (),
        corrected: str | None = None,
        reviewer: str | None = None,
    ) -> ReviewProgress:
        """Say which answer is better. ``corrected``: what the answer should be.

        Raises:
            Conflict: the caller has submitted the review, or it has ended.
        """
        body = {"choice": choice, "reasons": list(reasons), "corrected": corrected}
        return await self._send(
            ReviewProgress, "PUT", project, "reviews", review_id, "items", str(number), "answer",
            json=body, query={"reviewer": reviewer},
        )  # fmt: skip

    async def submit(
        self,
        project: str,
        review_id: str,
        verdict: Literal["approved", "rejected"],
        *,
        comment: str = "",
        reviewer: str | None = None,
    ) -> ReviewProgress:
        """End the caller's part of a review with a verdict.

        Raises:
            Conflict: items are not answered, or the review has ended.
        """
        return await self._send(
            ReviewProgress, "POST", project, "reviews", review_id, "submit",
            json={"verdict": verdict, "comment": comment}, query={"reviewer": reviewer},
            is_harmless=False,
        )  # fmt: skip
