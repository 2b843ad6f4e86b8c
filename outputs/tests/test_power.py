"""How likely a verdict is, told before a training."""

from __future__ import annotations

from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import (
    OUTCOMES,
    Contestant,
    Finding,
    MetricFacts,
    Role,
    Scorecard,
    worst_of,
)
from tunewheel_contracts.formats.spec import ProjectSpec, TaskSpec
from tunewheel_verdicts.drawing import Expected, assumed_of
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.power import (
    ENOUGH,
    Chances,
    chances,
    combined,
    expected_by,
    power_of,
    sizes_in,
    sizes_of,
)
from tunewheel_verdicts.proportions import paired_p_value, paired_rejected
from tunewheel_verdicts.significance import Scores
from tunewheel_verdicts.verdict import judge

NIGHTLY = pytest.mark.nightly("matrices")
LABEL = {"metric": "label_accuracy", "over_champion": -0.1, "significance": 0.5}


def told(*criteria: dict[str, Any], sizes: tuple[int, ...], **more: Any) -> list[Chances]:
    found = chances([Criterion.model_validate(one) for one in criteria], sizes, resolution=0.05, **more)
    assert all(one.met + one.undecided + one.missed == pytest.approx(1) for one in found)
    return list(found)


def spec(*criteria: dict[str, Any], examples: int = 400) -> ProjectSpec:
    plain = {"project": "desk", "base_model": "b", "task": {"system_prompt": "s", "label_field": "l"}}
    return ProjectSpec.model_validate(plain | {"dataset": {"min_examples": examples}, "criteria": criteria})


def simulated(gain: float, rows: int, draws: int) -> float:
    """Return how often whole verdicts on rows that are each their own are met; nothing is shared with
    ``power``."""
    rng, met = np.random.default_rng(3), 0
    won, lost = (0.2 + gain) / 2, (0.2 - gain) / 2
    criterion = Criterion.model_validate(LABEL)
    for _ in range(draws):
        outcome = rng.choice(4, rows, p=[won, lost, 0.75 - lost, 0.25 - won])
        scores = {Role.CANDIDATE: np.isin(outcome, (0, 2)), Role.CHAMPION: np.isin(outcome, (1, 2))}
        metric = Measured(
            name="label_accuracy", test="proportion", lower_is_better=False, lowest=0.0, highest=1.0,
            on="holdout", clusters=np.arange(rows),
            scores={role: Scores(hits.astype(float)) for role, hits in scores.items()},
        )  # fmt: skip
        task = TaskSpec(system_prompt="s")
        met += judge([criterion], {metric.name: metric}, task, resolution=0.05, seed=0)[0].passed
    return met / draws


@pytest.mark.parametrize(("place", "gain"), [pytest.param(1, 0.0, marks=NIGHTLY), (2, 0.05)])
def test_what_is_told_is_what_verdicts_do(place: int, gain: float) -> None:
    found = told(LABEL, sizes=(1,) * 60)[place]
    assert found.gain == gain
    assert found.met == pytest.approx(simulated(gain, 60, 300), abs=0.08)  # .05, and the error of 300


@NIGHTLY
def test_a_better_model_and_more_customers_pass_more_often() -> None:
    close = LABEL | {"over_champion": -0.05}
    few, many = told(close, sizes=sizes_of(60)), told(close, sizes=sizes_of(160))
    assert all(one.met <= other.met + 0.04 for one, other in pairwise(few[1:]))
    assert many[2].met > few[2].met + 0.1
    large = told(close, sizes=(20, 20, 20))
    assert large[2].met < few[2].met - 0.1  # three customers tell less than forty


@NIGHTLY
def test_all_criteria_have_to_be_met_together() -> None:
    kept = {"metric": "regression_accuracy", "over_base": -0.15}
    alone, both = told(LABEL, sizes=sizes_of(90)), told(LABEL, kept, sizes=sizes_of(90))
    only = told(kept, sizes=sizes_of(90))
    assert both[3].met == pytest.approx(alone[3].met * only[3].met)


def test_scores_and_ratios_are_told_too() -> None:
    rouge = told({"metric": "rouge_l", "over_champion": -0.02}, sizes=sizes_of(60))
    perplexity = told({"metric": "perplexity", "over_champion": 0.0}, sizes=sizes_of(60))
    for found in (rouge, perplexity):
        assert found[1].met < 0.5 < found[3].met


def test_what_was_measured_counts_instead_of_what_is_assumed() -> None:
    sure = {"label_accuracy": Expected(base=0.3, champion=0.75, differ=0.05)}
    plain = told(LABEL, sizes=sizes_of(60))[1].met
    assert told(LABEL, sizes=sizes_of(60), expected=sure)[1].met > plain + 0.2


def test_without_held_out_rows_nothing_is_decided() -> None:
    for metric in ("label_accuracy", "recall_at_k", "judged"):
        found = told({"metric": metric, "minimum": 0.5}, sizes=())
        assert {one.undecided for one in found} == {1.0}


def test_a_judge_prefers_a_better_model_and_no_equal_one() -> None:
    found = told({"metric": "judged", "minimum": 0.5, "significance": 0.5}, sizes=sizes_of(90))
    assert found[1].met < 0.6 < found[3].met


def test_a_scorecard_says_what_to_expect() -> None:
    figures = {Role.CANDIDATE: 0.9, Role.CHAMPION: 0.8, Role.BASE: 0.1}
    card = Scorecard.model_construct(
        contestants=tuple(
            Contestant(role=role, model_id="m", metrics={"label_accuracy": one})
            for role, one in figures.items()
        ),
        metrics={"label_accuracy": MetricFacts(unit="fraction", lower_is_better=False)},
        findings=(Finding.model_construct(rows=65, clusters=46),),
    )
    expected = expected_by(card)["label_accuracy"]
    assert (expected.base, expected.champion) == (0.1, 0.8)
    assert expected.differ == assumed_of("label_accuracy").differ
    assert (sum(sizes_in(card)), len(sizes_in(card))) == (65, 46)
    first = card.model_copy(update={"contestants": (card.contestants[0], card.contestants[2])})
    assert expected_by(first)["label_accuracy"].champion == 0.9  # the candidate becomes the champion


def test_too_few_rows_are_told_with_lines_to_copy() -> None:
    poor = power_of(spec(LABEL | {"over_champion": -0.05}, examples=200), sizes_of(30))
    assert poor.chances[-1].met < ENOUGH
    (lines,) = (one.lines for one in poor.remedies if "customers" in one.change)
    grown = int(lines[0].removeprefix("dataset: {min_examples: ").removesuffix("}"))
    enough = power_of(spec(LABEL | {"over_champion": -0.05}), sizes_of(int(grown * 0.15)))
    assert enough.chances[-1].met >= 0.74
    assert power_of(spec(LABEL), sizes_of(200)).remedies == ()


def test_a_bound_that_no_rows_reach_is_told_with_a_looser_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewheel_verdicts.power._MOST_ROWS", 240)
    asked = {"metric": "label_accuracy", "minimum": 0.85, "over_base": 0.1, "significance": 0.5}
    power = power_of(spec(asked), sizes_of(60))
    looser = [one for one in power.remedies if "label_accuracy" in one.change]
    assert [line for line in looser[0].lines if "minimum" in line]
    hopeless = power_of(spec({"metric": "label_accuracy", "minimum": 1.0}), sizes_of(60))
    assert hopeless.chances[-1].met == 0
    assert not [one for one in hopeless.remedies if "customers" in one.change]


@pytest.mark.parametrize(("pairs", "difference"), [(20, -0.1), (41, 0.0), (60, 0.05)])
def test_all_tables_at_once_are_rejected_as_each_of_them(pairs: int, difference: float) -> None:
    rejected = paired_rejected(pairs, difference, alpha=0.05)
    for gained, lost in ((0, 3), (5, 0), (5, 2), (12, 3), (9, 8)):
        assert rejected[gained, lost] == (paired_p_value(gained, lost, pairs, difference) <= 0.05)


def test_the_outcome_of_criteria_together_is_that_of_a_verdict() -> None:
    each = [(0.7, 0.2, 0.1), (0.5, 0.5, 0.0), (0.9, 0.02, 0.08)]
    wanted = dict.fromkeys(OUTCOMES, 0.0)
    for picked in product(range(3), repeat=len(each)):
        likely = prod(one[place] for one, place in zip(each, picked, strict=True))
        wanted[worst_of(OUTCOMES[place] for place in picked)] += likely
    found = combined(0.0, each)
    assert (found.met, found.undecided, found.missed) == pytest.approx(tuple(wanted.values()))
    alone = combined(0.0, [])
    assert (worst_of([]), alone.met, alone.undecided, alone.missed) == ("met", 1.0, 0.0, 0.0)
