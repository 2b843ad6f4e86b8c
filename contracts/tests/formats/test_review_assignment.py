"""Who judges which items, and that nobody can tell the sides without the seed."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.formats.review import ReviewItem, ReviewSet
from tunewheel_contracts.formats.review_assignment import Choice, Pair, assigned_pairs

SEED = b"seed"


def item(n: int) -> ReviewItem:
    return ReviewItem(
        item_id=f"item-{n}",
        example_id=f"e-{n}",
        messages=(ChatMessage(role="user", content=f"question {n}"),),
        expected="expected",
        candidate=f"candidate {n}",
        other=f"other {n}",
        stratum="label",
    )


def review_set(items: int = 60, **changes: Any) -> ReviewSet:
    fields: dict[str, Any] = {
        "review_id": "rev-1",
        "project": "desk",
        "run_id": "run-1",
        "evaluation_id": None,
        "candidate_id": "desk-2",
        "other_id": "desk-1",
        "items": tuple(map(item, range(items))),
    }
    return ReviewSet(**fields | changes)


def pairs_of(review: ReviewSet, share: int, reviewer: str, seed: bytes = SEED) -> list[Pair]:
    dealt = [one.item_id for one in review.items]
    found = assigned_pairs(review, dealt=dealt, share=share, reviewer=reviewer, seed=seed)
    return [pair for pair in found if pair is not None]


@pytest.mark.parametrize(
    ("items", "reviewers", "per_item"),
    [(60, 3, 1), (60, 3, 2), (60, 3, 3), (61, 3, 2), (50, 4, 3), (1, 3, 1), (7, 1, 1), (20, 20, 7)],
)
def test_each_item_lies_in_the_declared_number_of_shares(items: int, reviewers: int, per_item: int):
    review = review_set(items, reviewers=reviewers, per_item=per_item)
    shares = [[pair.item.item_id for pair in pairs_of(review, n, f"r{n}")] for n in range(1, reviewers + 1)]
    assert Counter(name for share in shares for name in share) == {
        one.item_id: per_item for one in review.items
    }
    assert max(map(len, shares)) - min(map(len, shares)) <= per_item
    assert all(len(set(share)) == len(share) for share in shares)


def test_more_copies_than_reviewers_are_one_for_each():
    """An old set says nothing of shares: everybody judges everything."""
    assert len(pairs_of(review_set(5), 1, "ann")) == 5
    assert len(pairs_of(review_set(5, per_item=3), 1, "ann")) == 5


def test_order_and_sides_are_each_reviewers_own_and_stay():
    review = review_set(reviewers=2, per_item=2)
    ann = pairs_of(review, 1, "ann")
    bob = pairs_of(review, 2, "bob")
    assert ann == pairs_of(review, 1, "ann")
    assert [pair.item for pair in ann] != [pair.item for pair in bob]
    sides = [{pair.item.item_id: pair.candidate_is_left for pair in pairs} for pairs in (ann, bob)]
    assert sides[0] != sides[1]
    assert [sum(side.values()) for side in sides] == [30, 30], "no side is favoured"


def test_the_sides_follow_from_the_seed_alone():
    """Everything but the seed can be known to a reviewer; one in two guesses is right, also of one item."""
    review = review_set(1)
    sides = [pairs_of(review, 1, "ann", str(n).encode())[0].candidate_is_left for n in range(200)]
    assert 70 < sum(sides) < 130


def test_a_choice_says_what_it_says_of_the_candidate():
    for pair in pairs_of(review_set(), 1, "ann"):
        preferred = Choice.LEFT if pair.candidate_is_left else Choice.RIGHT
        assert (pair.left if preferred is Choice.LEFT else pair.right) == pair.item.candidate
        assert {pair.left, pair.right} == {pair.item.candidate, pair.item.other}
        assert pair.preference(preferred) == "better"
        assert pair.preference(Choice.SAME) == "same"
        for choice in Choice:
            assert pair.choice(pair.preference(choice)) is choice


def test_an_erasure_leaves_a_gap_and_moves_nothing_else():
    review = review_set(reviewers=3)
    dealt = [one.item_id for one in review.items]
    before = assigned_pairs(review, dealt=dealt, share=1, reviewer="ann", seed=SEED)
    gone = before[4]
    assert gone is not None
    left = tuple(one for one in review.items if one != gone.item)
    shorn = review.model_copy(update={"items": left})
    after = assigned_pairs(shorn, dealt=dealt, share=1, reviewer="ann", seed=SEED)
    assert after == (*before[:4], None, *before[5:])
