"""The judge's error is taken out: a small seeded part of ``make bench NAME=judge``."""

from __future__ import annotations

import numpy as np
import pytest
from tunewheel_eval.judges.error import Reviewed, corrected
from tunewheel_verdicts.significance import Interval

ROWS = 100


def figure(
    values: list[float], reviewed: list[Reviewed], *, differ: float = 1.0, alpha: float = 0.05
) -> Interval:
    count = len(values)
    differs = np.arange(count) < differ * count
    return corrected(np.array(values), differs, np.arange(count), reviewed, alpha=alpha)


def pairs(*told: tuple[float, float], times: int = 10, weight: float = 1.0) -> list[Reviewed]:
    return [Reviewed(person, judge, weight) for person, judge in told] * times


def test_a_judge_that_always_prefers_the_candidate_is_corrected_to_what_people_say() -> None:
    flattering = pairs((1.0, 1.0), (0.0, 1.0))
    found = figure([1.0] * ROWS, flattering)
    assert found.figure == pytest.approx(0.5)
    assert found.low < 0.4 < 0.6 < found.high
    assert figure([0.0] * ROWS, pairs((0.5, 0.0))).figure == pytest.approx(0.5)


@pytest.mark.parametrize("rows", [2, 100])
def test_answers_that_are_all_equal_are_ties_of_which_further_rows_may_differ(rows: int) -> None:
    found = figure([0.5] * rows, pairs((1.0, 1.0), (0.0, 0.0)), differ=0.0)
    assert found.figure == 0.5
    assert found.high - 0.5 == pytest.approx(0.5 * (1 - 0.05 ** (1 / rows)))
    assert found.low == pytest.approx(1 - found.high)


@pytest.mark.parametrize("differ", [True, False])
def test_rows_of_one_customer_bound_nothing(differ: bool) -> None:
    same = np.zeros(5, np.int64)
    found = corrected(np.ones(5), np.full(5, differ), same, pairs((1.0, 1.0)), alpha=0.05)
    assert (found.low, found.high) == (0, 1)


def test_rows_that_do_not_differ_are_ties_and_narrow_the_interval() -> None:
    agreeing = pairs((1.0, 1.0), (1.0, 1.0), (0.0, 0.0))
    half = figure([1.0, 1.0, 0.0, 0.5] * 25, agreeing, differ=0.5)
    whole = figure([1.0, 1.0, 0.0, 0.5] * 25, agreeing)
    assert abs(half.figure - 0.5) < abs(whole.figure - 0.5)
    assert half.high - half.low < 0.6 * (whole.high - whole.low)


def test_a_judge_that_errs_more_widens_the_interval_and_more_reviews_narrow_it() -> None:
    values = [1.0, 0.0] * 50
    right, wrong = pairs((1.0, 1.0), (0.0, 0.0)), pairs((1.0, 0.0), (0.0, 1.0))
    told = {"right": right, "wrong": wrong, "more": wrong * 4}
    width = {name: (found := figure(values, reviewed)).high - found.low for name, reviewed in told.items()}
    assert width["right"] < width["more"] < width["wrong"]


def test_a_kind_of_pairs_that_was_drawn_more_often_counts_by_its_share() -> None:
    often = pairs((0.0, 0.5), weight=0.2)
    rare = pairs((1.0, 0.5), times=2, weight=5.0)
    assert figure([0.5] * ROWS, often + rare).figure == pytest.approx(10 / 12)


@pytest.mark.parametrize("agreement", [0.7, 0.95])
def test_the_interval_holds_what_people_would_say(agreement: float) -> None:
    rng, held, rounds, truth = np.random.default_rng(3), 0, 400, 0.6

    def draw(count: int) -> tuple[np.ndarray, np.ndarray]:
        people = rng.choice([0.0, 0.5, 1.0], size=count, p=[0.3, 0.2, 0.5])
        return people, np.where(rng.random(count) < agreement, people, 1.0)  # an error favours the candidate

    for _ in range(rounds):
        _, values = draw(ROWS)
        people, judge = draw(30)
        reviewed = [Reviewed(person, said) for person, said in zip(people, judge, strict=True)]
        found = corrected(values, np.ones(ROWS, bool), np.arange(ROWS), reviewed, alpha=0.025)
        held += found.low <= truth <= found.high
    assert held / rounds > 0.93
