"""The reviewers' answers so far: a fold over ``review.answered``."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.evaluation import ReviewAnswered
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.formats.spec import ReviewSpec

from tunewheel_eval.reviewing.cases import ReviewCase, Submission, person_of
from tunewheel_eval.reviewing.preference import SCORES


class Answers:
    """The newest answer of every person to every item. Applying an answer twice changes nothing. An answer
    that arrives late does not replace a newer one."""

    def __init__(self) -> None:
        self._newest: defaultdict[tuple[str, str], dict[str, ReviewAnswered]] = defaultdict(dict)
        """By review and person, then by item."""

    def apply(self, event: Envelope[Any]) -> None:
        """Apply one event. An answer with an unknown preference is ignored."""
        answer = event.data
        if not isinstance(answer, ReviewAnswered) or answer.preference not in SCORES:
            return
        own = self._newest[answer.review_id, person_of(answer)]
        earlier = own.get(answer.item_id)
        if earlier is None or answer.revision >= earlier.revision:
            own[answer.item_id] = answer

    def of(self, review_id: str, person: str) -> tuple[ReviewAnswered, ...]:
        """Return a person's answers, by item."""
        own = self._newest.get((review_id, person), {})
        return tuple(own[item_id] for item_id in sorted(own))


def check_answer(answer: ReviewAnswered, reviewed: ReviewSet | None) -> None:
    """Raise InvalidEvent for an answer with an unknown preference, or about no item of the set."""
    if answer.preference not in SCORES:
        reason = f"is {answer.preference!r}; send one of {', '.join(SCORES)}"
        raise InvalidEvent(field="preference", reason=reason)
    if reviewed is None or answer.item_id not in {item.item_id for item in reviewed.items}:
        reason = f"{answer.item_id!r} is not in the review set {answer.review_id!r}; take it from the set"
        raise InvalidEvent(field="item_id", reason=reason)


def counted(answer: ReviewAnswered, submission: Submission) -> bool:
    """Return whether a submission contains this answer, or a newer one to the same item."""
    return any(
        one.item_id == answer.item_id and one.revision >= answer.revision for one in submission.answers
    )


def missing(submission: Submission, case: ReviewCase, reviewed: ReviewSet | None) -> int:
    """Return how many answers a person still owes, at least: up to the smallest share of the set as it was
    drawn. Items that were erased since are not owed."""
    erased = len(case.drawn) - (len(reviewed.items) if reviewed is not None else 0)
    return max(0, smallest_share(len(case.drawn), case.rule) - len(submission.answers) - erased)


def smallest_share(items: int, rule: ReviewSpec) -> int:
    """Return the smallest number of ``items`` that a person must judge (``review_assignment``). Only the
    console knows which items a person gets, because it assigns them by its secret."""
    people, copies = rule.reviewers, min(rule.per_item, rule.reviewers)
    return min(sum((share - n) % people < copies for n in range(items)) for share in range(people))
