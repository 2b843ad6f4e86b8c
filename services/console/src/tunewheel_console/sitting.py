"""One person's part of a review: their items, and what they answered."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from tunewheel_contracts.events.evaluation import AnswersCompared
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.formats.review_assignment import Choice, Pair
from tunewheel_runtime.refusals import Refused

from tunewheel_console.queues import Asked, Review


@dataclass(frozen=True, slots=True)
class ItemAnswer:
    """One reviewer's answer to one item, by side. It does not tell which side is the candidate."""

    choice: Choice
    reasons: tuple[str, ...]
    corrected: str | None


@dataclass(frozen=True, slots=True)
class Sitting:
    """One person's part of one review. Items are numbered from 1, in this person's order. An erased item
    leaves a gap in the numbers, as does a pair of a trial that people are not asked about."""

    review_id: str
    request: Asked
    reviewer: str
    set: ReviewSet
    pairs: tuple[Pair | None, ...]
    review: Review

    @property
    def answered(self) -> int:
        if self.is_over:
            return self.review.preferences_of(self.reviewer).total()
        return len(self.numbers) - len(self.missing)

    @property
    def numbers(self) -> list[int]:
        """Return the numbers of this person's items."""
        return [number for number, pair in enumerate(self.pairs, 1) if pair is not None]

    @property
    def missing(self) -> list[int]:
        """Return the numbers of the items that wait for this person. For a pair of a trial, one person's
        answer is enough."""
        review = self.review
        done = review.compared if review.comparisons else review.answers_of(self.reviewer).keys()
        return [number for number in self.numbers if self.pair(number).item.item_id not in done]

    @property
    def first_unanswered(self) -> int | None:
        return next(iter(self.missing), None)

    @property
    def is_submitted(self) -> bool:
        return self.review.submission_of(self.reviewer) is not None

    @property
    def is_over(self) -> bool:
        """Whether this person's part is over. Only then are the sides told."""
        return self.is_submitted or self.review.outcome is not None

    def pair(self, number: int) -> Pair:
        """Return an item. Raises Refused if the number is not one of this person's."""
        if not 1 <= number <= len(self.pairs):
            reason = f"{number} is not yours; yours are 1 to {len(self.pairs)}"
            raise Refused(HTTPStatus.NOT_FOUND, "item", reason)
        pair = self.pairs[number - 1]
        if pair is None:
            raise Refused(
                HTTPStatus.GONE, "item", f"{number} was erased, or is for the judge; go on with the next"
            )
        return pair

    def answer_to(self, number: int) -> ItemAnswer | None:
        """Return this person's answer to an item."""
        pair = self.pair(number)
        answer = self.review.answers_of(self.reviewer).get(pair.item.item_id)
        if answer is None:
            return None
        if isinstance(answer.data, AnswersCompared):
            return ItemAnswer(pair.choice(answer.data.preference), (), None)
        return ItemAnswer(pair.choice(answer.data.preference), answer.data.reasons, answer.data.corrected)


def require_open(sitting: Sitting) -> None:
    if sitting.is_submitted:
        raise Refused(HTTPStatus.CONFLICT, "review_id", "you have submitted; that was your last word")
    if sitting.review.outcome is not None:
        reason = f"{sitting.review_id} has ended: {sitting.review.outcome}; no more answers are taken"
        raise Refused(HTTPStatus.CONFLICT, "review_id", reason)
