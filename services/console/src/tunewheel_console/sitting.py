"""One person's part of a review: their items, and what they answered; and the pairs of answers of a trial, in
the form of a review's items. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus

from tunewheel_contracts.events.evaluation import AnswersCompared, ComparisonsRequested
from tunewheel_contracts.formats.label_prompts import LabelPrompts
from tunewheel_contracts.formats.review import ReviewSet, item_of_pair, pair_id
from tunewheel_contracts.formats.review_assignment import Choice, Pair, assigned_pairs
from tunewheel_runtime.identity.roles import Caller
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


def set_of(asked: ComparisonsRequested, files: Sequence[LabelPrompts]) -> ReviewSet | None:
    """Return the pairs that were not erased; None: there are none."""
    found = (item_of_pair(prompt) for file in files for prompt in file.items)
    items = tuple(item for item in found if item is not None)
    if not items:
        return None
    return ReviewSet(
        review_id=asked.request_id,
        project=asked.project,
        run_id=asked.model_id,
        evaluation_id=None,
        candidate_id=asked.model_id,
        other_id=asked.against,
        items=items,
    )


def dealt_pairs(
    asked: ComparisonsRequested,
    found: ReviewSet,
    files: Sequence[LabelPrompts],
    *,
    reviewer: str,
    seed: bytes,
) -> tuple[Pair | None, ...]:
    """Return all pairs in the order of ``reviewer``; None for one that was erased, or is for the judge alone.
    Each file is dealt by itself, so that a later one moves no earlier pair and no side."""
    pairs: list[Pair | None] = []
    wanted = {pair_id(name) for name in asked.completion_ids[: asked.for_people]}
    for number, file in enumerate(files, 1):
        part = found.model_copy(update={"review_id": f"{found.review_id}.{number}"})
        ids = [pair_id(prompt.completion_id) for prompt in file.items]
        pairs += assigned_pairs(part, dealt=ids, share=1, reviewer=reviewer, seed=seed)
    return tuple(pair if pair is not None and pair.item.item_id in wanted else None for pair in pairs)


def comparison_of(
    sitting: Sitting, asked: ComparisonsRequested, number: int, chosen: ItemAnswer, caller: Caller
) -> AnswersCompared:
    """Return the event of a person's first answer to a pair. Raises Refused: they or somebody else have
    compared it, or the answer has reasons or a correction."""
    pair = sitting.pair(number)
    if number not in sitting.missing:
        who = "you" if sitting.answer_to(number) is not None else "somebody else"
        reason = f"{number} was compared by {who}; the first answer counts"
        raise Refused(HTTPStatus.CONFLICT, "item", reason)
    if chosen.reasons or chosen.corrected is not None:
        reason = "and corrected are not taken while a trial runs; send the choice alone"
        raise Refused(HTTPStatus.UNPROCESSABLE_ENTITY, "reasons", reason)
    return AnswersCompared(
        project=asked.project,
        request_id=asked.request_id,
        model_id=asked.model_id,
        completion_id=pair.item.example_id,
        preference=pair.preference(chosen.choice),
        reviewer=sitting.reviewer,
        principal=caller.principal,
    )
