"""Assigns the items of a review set to reviewers, and chooses their order and the candidate's side (left or
right).

The functions are pure: the same arguments give the same result in every process. ``seed`` is a secret of the
review. Without it the sides cannot be computed, even with all names and ids.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import Literal

from tunewheel_contracts.formats.review import ReviewItem, ReviewSet


class Choice(StrEnum):
    """The answer that a reviewer prefers, by its side."""

    LEFT = "left"
    SAME = "same"
    RIGHT = "right"


@dataclass(frozen=True, slots=True)
class Pair:
    """An item as one reviewer sees it."""

    item: ReviewItem
    candidate_is_left: bool

    @property
    def left(self) -> str:
        return self.item.candidate if self.candidate_is_left else self.item.other

    @property
    def right(self) -> str:
        return self.item.other if self.candidate_is_left else self.item.candidate

    def preference(self, choice: Choice) -> Literal["better", "same", "worse"]:
        """Return what ``choice`` means for the candidate: ``better``, ``same`` or ``worse``."""
        if choice is Choice.SAME:
            return "same"
        return "better" if (choice is Choice.LEFT) == self.candidate_is_left else "worse"

    def choice(self, preference: str) -> Choice:
        """Return the choice that means ``preference``: the inverse of ``preference()``."""
        return next(choice for choice in Choice if self.preference(choice) == preference)


def assigned_pairs(
    review: ReviewSet, *, dealt: Sequence[str], share: int, reviewer: str, seed: bytes
) -> tuple[Pair | None, ...]:
    """Return the pairs that ``reviewer`` judges, in the reviewer's own order; None for an item that was
    erased since.

    The items are divided into ``review.reviewers`` shares, so that each item is in ``review.per_item``
    shares. The sizes of shares differ by at most ``per_item``. The candidate is on the left in half of a
    reviewer's pairs (for an odd number, in one more or one fewer), so that a habit of choosing one side
    favours neither model.

    Args:
        dealt: ids of all items of the set when it was first opened, so that an erasure does not move other
        items. share: 1 to ``review.reviewers``.
    """

    def drawn(*names: str) -> bytes:
        return hmac.digest(seed, "\0".join((review.review_id, *names)).encode(), sha256)

    def shuffled(item_ids: Iterable[str], *names: str) -> list[str]:
        return sorted(item_ids, key=lambda item_id: drawn(*names, item_id))

    shares, copies = review.reviewers, min(review.per_item, review.reviewers)
    mine = [
        item_id for n, item_id in enumerate(shuffled(dealt, "share")) if (share - 1 - n) % shares < copies
    ]
    left = set(shuffled(mine, "side", reviewer)[drawn("first", reviewer)[0] % 2 :: 2])
    pairs = {item.item_id: Pair(item, item.item_id in left) for item in review.items}
    return tuple(pairs.get(item_id) for item_id in shuffled(mine, "order", reviewer))
