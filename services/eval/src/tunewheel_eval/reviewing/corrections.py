"""Publishes reviewers' corrected answers as expert examples for ingest.

Their prompts were held out, so curate holds the corrections out too. They change expected answers, and never
train.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from pydantic import ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.events.evaluation import ReviewAnswered
from tunewheel_contracts.events.upstream import ExamplePublished
from tunewheel_contracts.formats.review import CORRECTED_IN_REVIEW, ReviewItem, ReviewSet
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.principal import Trust

from tunewheel_eval.reviewing.cases import Submission, person_of

log = structlog.get_logger(__name__)


def corrections(
    reviewed: ReviewSet | None, submissions: Sequence[Submission]
) -> tuple[ExamplePublished, ...]:
    """Return an example for every corrected answer whose prompt is still in the set; erased prompts give
    none.

    The same answer gives the same example. A prompt that is not valid as an example (without a question, or
    too long) is skipped, so that the verdict is still published.
    """
    items = {item.item_id: item for item in (reviewed.items if reviewed else ())}
    found = (
        _example(items[answer.item_id], answer)
        for submission in submissions
        for answer in submission.answers
        if answer.item_id in items and _corrects(answer, items[answer.item_id])
    )
    return tuple(example for example in found if example is not None)


def correction_id(answer: ReviewAnswered) -> str:
    """Return the example's id. It follows from the review, the item and the person."""
    cause = {"review": answer.review_id, "item": answer.item_id, "person": person_of(answer)}
    return content_id("correction", cause)


def _corrects(answer: ReviewAnswered, item: ReviewItem) -> bool:
    said = (answer.corrected or "").strip()
    return bool(said) and said != item.expected.strip()


def _example(item: ReviewItem, answer: ReviewAnswered) -> ExamplePublished | None:
    turns = [message for message in item.messages if message.role != "system"]
    try:
        return ExamplePublished(
            project=answer.project,
            example_id=correction_id(answer),
            input=turns[-1].content if turns else "",
            messages=tuple(turns[:-1]),
            output=(answer.corrected or "").strip(),
            validated_by=answer.reviewer,
            attributes={CORRECTED_IN_REVIEW: answer.review_id},
            principal=answer.principal,
            authority=Trust.EXPERT,  # Its reviewer submitted, and had the role.
        )
    except ValidationError as error:
        field, reason = first_complaint(error)
        log.warning("correction_is_no_example", review_id=answer.review_id, field=field, reason=reason)
        return None
