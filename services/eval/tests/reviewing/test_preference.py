"""The preference covers, reviewers of one item count once, and agreement is told only where it can be."""

from __future__ import annotations

import math

import numpy as np
import pytest
from tunewheel_contracts.events.evaluation import ReviewAnswered
from tunewheel_eval.reviewing.preference import agreement, outcome_of, preferred

LETTERS = {"b": "better", "s": "same", "w": "worse"}


def answers(pattern: str, *, first: int = 0) -> list[ReviewAnswered]:
    """One person's answers: a letter per item, a dot where they gave none."""
    return [
        ReviewAnswered(
            project="desk", run_id="run-1", review_id="review-1", item_id=f"item-{first + n}",
            reviewer="ada", preference=LETTERS[letter],
        )
        for n, letter in enumerate(pattern)
        if letter != "."
    ]  # fmt: skip


@pytest.mark.parametrize("items", [20, 60])
@pytest.mark.parametrize("shares", [(0.5, 0.0), (0.3, 0.4), (0.1, 0.1), (0.8, 0.0), (0.9, 0.1)])
def test_the_interval_covers_with_ties_and_with_several_reviewers(
    items: int, shares: tuple[float, float]
) -> None:
    """Two reviewers of an item mostly agree: their answers are not two observations."""
    better, same = shares
    truth = better + same / 2
    rng = np.random.default_rng(20)
    values = np.array([1.0, 0.5, 0.0])
    chances = [better, same, max(0.0, 1 - better - same)]
    inside = 0
    for _ in range(1000):
        first = rng.choice(values, size=items, p=chances)
        second = np.where(rng.random(items) < 0.8, first, rng.choice(values, size=items, p=chances))
        _, low, high = preferred([(items, ((first + second) / 2).tolist())])
        inside += low <= truth <= high
    assert inside >= 940


def test_an_item_that_two_judged_weighs_as_much_as_one_that_a_third_judged() -> None:
    outcome = outcome_of({"ada": answers("bb"), "bob": answers("b."), "eve": answers("w", first=2)})
    assert (outcome.reviewers, outcome.answers, outcome.better, outcome.worse) == (3, 4, 3, 1)
    assert outcome.preference == pytest.approx(2 / 3)
    assert 0 < outcome.preference_low < outcome.preference < outcome.preference_high < 1


def test_nothing_answered_says_nothing() -> None:
    outcome = outcome_of({})
    assert (outcome.preference, outcome.preference_low, outcome.preference_high) == (0.5, 0.0, 1.0)
    assert (outcome.alpha, outcome.answers) == (None, 0)


def test_unanimous_answers_leave_the_interval_open() -> None:
    share, low, high = preferred([(20, [1.0] * 20)])
    assert (share, high) == (1.0, 1.0)
    assert 0.8 < low < 0.9


@pytest.mark.parametrize(
    ("one", "other", "alpha"),
    [
        ("bbwwss", "bbwwss", 1.0),
        ("bbww..", "..wwbb", None),  # what both judged has one answer: nobody can tell
        ("bbbb", "bbbb", None),
        ("bb..", "..ww", None),
        ("", "", None),
    ],
)
def test_agreement_is_told_where_it_can_be(one: str, other: str, alpha: float | None) -> None:
    assert agreement({"ada": answers(one), "bob": answers(other)}) == alpha


def test_better_against_worse_is_more_disagreement_than_better_against_same() -> None:
    near = agreement({"ada": answers("bbwwbs"), "bob": answers("bswwbs")})
    far = agreement({"ada": answers("bbwwbs"), "bob": answers("bwwwbs")})
    assert near is not None
    assert far is not None
    assert far < near < 1
    assert math.isfinite(far)


def test_reasons_and_comments_are_kept() -> None:
    said = [one.model_copy(update={"reasons": ("tone", "tone", "facts")}) for one in answers("bb")]
    outcome = outcome_of({"ada": said}, comments=["fine", " "], overrides=["rouge_l"])
    assert outcome.reasons == {"facts": 2, "tone": 2}
    assert (outcome.comments, outcome.overrides) == (("fine",), ("rouge_l",))


@pytest.mark.parametrize("differing", [18, 60])
def test_a_candidate_that_is_better_on_every_differing_item_passes(differing: int) -> None:
    equal = differing * 7 // 3  # the two agree on 70 % of the prompts
    share, low, high = preferred([(differing, [1.0] * differing)], equal=equal)
    assert share == pytest.approx(0.65)
    assert 0.5 < low < share
    assert high == pytest.approx(share)


def test_a_stratum_counts_by_its_prompts_and_not_by_its_items() -> None:
    share, low, high = preferred([(90, [1.0, 1.0, 0.5]), (10, [0.0] * 9)])
    assert share == pytest.approx(0.9 * 5 / 6)
    assert low < share < high
    outcome = outcome_of(
        {"ada": answers("bw")}, strata={"item-0": "a", "item-1": "worst"}, sizes={"a": 99, "worst": 1}
    )
    assert outcome.preference == pytest.approx(0.99)
