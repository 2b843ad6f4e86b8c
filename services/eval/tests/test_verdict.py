from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.criteria import Criterion, Metric
from tunewheel_contracts.formats.scorecard import Comparison, Contestant, CriterionCheck, Role
from tunewheel_eval.verdict import judge

ACCURACY = Metric.LABEL_ACCURACY


def contestant(role: Role, **metrics: float) -> Contestant:
    return Contestant(role=role, model_id=role.value, metrics=metrics)


def comparison(metric: Metric, against: Role, p_value: float) -> Comparison:
    return Comparison(
        metric=metric, against=against, test="mcnemar_exact", difference=0.1, p_value=p_value,
        ci_low=0.0, ci_high=0.2,
    )  # fmt: skip


CONTESTANTS = (
    contestant(Role.BASE, label_accuracy=0.1, perplexity=20.0),
    contestant(Role.CANDIDATE, label_accuracy=0.8, perplexity=5.0),
    contestant(Role.CHAMPION, label_accuracy=0.7, perplexity=4.0),
)
COMPARISONS = (comparison(ACCURACY, Role.BASE, 0.001), comparison(ACCURACY, Role.CHAMPION, 0.2))


def check(metric: str = "label_accuracy", *, champion: bool = True, **bounds: Any) -> CriterionCheck:
    criterion = Criterion.model_validate({"metric": metric, **bounds})
    contestants = CONTESTANTS if champion else CONTESTANTS[:2]
    comparisons = COMPARISONS if champion else COMPARISONS[:1]
    (found,) = judge((criterion,), contestants, comparisons)
    return found


@pytest.mark.parametrize(
    ("bounds", "passed"),
    [
        ({"minimum": 0.8}, True),
        ({"minimum": 0.81}, False),
        ({"maximum": 0.8}, True),
        ({"maximum": 0.79}, False),
        ({"over_base": 0.7}, True),  # 0.8 - 0.1 is 0.7000000000000001 or less in binary: met all the same
        ({"over_base": 0.71}, False),
        ({"over_champion": 0.1}, True),  # 0.8 - 0.7 is 0.09999999999999998
        ({"over_champion": 0.11}, False),
        ({"over_champion": -0.5}, True),
        ({"minimum": 0.5, "over_base": 0.71}, False),
        ({"significance": 0.05}, False),  # against the champion, not the base
        ({"significance": 0.2}, False),  # below, not at
        ({"significance": 0.21}, True),
    ],
)
def test_every_bound_must_hold(bounds: dict[str, float], passed: bool) -> None:
    assert check(**bounds).passed is passed


@pytest.mark.parametrize(
    ("bounds", "passed"),
    [
        ({"maximum": 5.0}, True),
        ({"maximum": 4.9}, False),
        ({"over_base": 15.0}, True),
        ({"over_base": 15.1}, False),
        ({"over_champion": 0.0}, False),
        ({"over_champion": -1.0}, True),
    ],
)
def test_less_perplexity_is_an_advantage(bounds: dict[str, float], passed: bool) -> None:
    assert check("perplexity", **bounds).passed is passed


def test_first_candidate_is_not_held_against_a_champion_that_is_not_there() -> None:
    found = check(champion=False, minimum=0.5, over_champion=0.3)
    assert found.passed
    assert "no champion" in found.reason


def test_without_champion_significance_is_against_the_base() -> None:
    found = check(champion=False, significance=0.05)
    assert found.passed
    assert "against the base" in found.reason


def test_reason_says_observed_and_bound() -> None:
    found = check(minimum=0.95, over_base=0.2)
    assert not found.passed
    assert found.observed == 0.8
    assert found.reason == (
        "label_accuracy is 0.8: misses the minimum of 0.95; "
        "+0.7 against the base's 0.1 meets the +0.2 asked for"
    )


def test_what_was_not_measured_is_not_passed() -> None:
    found = check("valid_output", minimum=0.0)
    assert not found.passed
    assert found.observed is None
    assert "not measured" in found.reason


def test_missing_test_is_not_passed() -> None:
    assert not check("perplexity", significance=0.99).passed
