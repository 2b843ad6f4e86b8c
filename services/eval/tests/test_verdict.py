from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.formats.criteria import Criterion
from tunewheel_contracts.formats.scorecard import CriterionCheck, Role, Scorecard
from tunewheel_contracts.formats.spec import TaskSpec
from tunewheel_eval.scorecards import failures
from tunewheel_verdicts.measured import Measured
from tunewheel_verdicts.significance import Scores
from tunewheel_verdicts.verdict import judge, outcome_of


def hits(right: int, rows: int) -> Scores:
    """The first ``right`` of ``rows`` are right."""
    return Scores((np.arange(rows) < right).astype(np.float64))


def accuracy(
    candidate: int, base: int, champion: int | None, *, rows: int, **facts: Any
) -> dict[str, Measured]:
    scores = {Role.CANDIDATE: hits(candidate, rows), Role.BASE: hits(base, rows)}
    if champion is not None:
        scores[Role.CHAMPION] = hits(champion, rows)
    plain: dict[str, Any] = {"on": "regression", "clusters": np.arange(rows), **facts}
    return {
        "label_accuracy": Measured(
            name="label_accuracy", test="proportion", lower_is_better=False, lowest=0.0, highest=1.0,
            scores=scores, **plain,
        )
    }  # fmt: skip


PLENTY = accuracy(800, 100, 700, rows=1000)
FEW = accuracy(16, 2, 14, rows=20)


def check(found: dict[str, Measured], metric: str = "label_accuracy", **bounds: Any) -> CriterionCheck:
    criterion = Criterion.model_validate({"metric": metric, **bounds})
    (checked,) = judge((criterion,), found, TaskSpec(system_prompt="s"), resolution=0.05, seed=0)
    assert checked.passed is (checked.outcome == "met")
    return checked


@pytest.mark.parametrize(
    ("bounds", "outcome"),
    [
        ({"minimum": 0.75}, "met"),
        ({"minimum": 0.85}, "missed"),
        ({"minimum": 0.8}, "undecided"),  # no interval excludes the bound, however many rows there are
        ({"maximum": 0.85}, "met"),
        ({"maximum": 0.75}, "missed"),
        ({"over_base": 0.6}, "met"),
        ({"over_base": 0.8}, "missed"),
        ({"over_champion": 0.05}, "met"),
        ({"over_champion": 0.0}, "met"),
        ({"over_champion": 0.15}, "missed"),
        ({"over_champion": -0.5}, "met"),
        ({"minimum": 0.5, "over_base": 0.8}, "missed"),
        ({"significance": 0.05}, "met"),
    ],
)
def test_many_rows_decide(bounds: dict[str, float], outcome: str) -> None:
    assert check(PLENTY, **bounds).outcome == outcome


@pytest.mark.parametrize(
    ("bounds", "outcome"),
    [
        ({"minimum": 0.75}, "undecided"),
        ({"minimum": 0.5}, "met"),
        ({"minimum": 0.99}, "missed"),
        ({"over_champion": 0.0}, "undecided"),
        ({"over_champion": 0.3}, "missed"),
        ({"over_base": 0.3}, "met"),
        ({"significance": 0.05}, "undecided"),
        ({"minimum": 0.75, "over_champion": 0.3}, "missed"),  # what is known to be missed is not open
        ({"minimum": 0.0}, "met"),  # nothing is below it
        ({"maximum": 1.0}, "met"),
        ({"over_champion": -1.0}, "met"),
    ],
)
def test_few_rows_leave_much_open(bounds: dict[str, float], outcome: str) -> None:
    assert check(FEW, **bounds).outcome == outcome


@pytest.mark.parametrize(
    ("found", "bounds", "difference"),
    [
        (accuracy(60, 10, 64, rows=80, on="holdout"), {"over_champion": -0.1}, -0.05),
        (accuracy(60, 10, 64, rows=80, on="holdout"), {"significance": 0.05}, -0.05),
        (accuracy(60, 10, 60, rows=80, on="holdout"), {"over_champion": -0.1}, 0.0),
        (accuracy(60, 10, 64, rows=80, on="holdout"), {"minimum": 0.5}, None),
        (accuracy(60, 10, None, rows=80, on="holdout"), {"over_champion": -0.1}, None),
        (accuracy(60, 10, 64, rows=80), {"over_champion": -0.1}, None),
        (accuracy(60, 10, 64, rows=80, on="holdout", unit="perplexity"), {"over_champion": -0.1}, None),
    ],
    ids=["worse", "significance", "equal", "no_bound", "no_champion", "general_set", "no_share"],
)
def test_a_check_against_the_champion_tells_the_gain_with_its_error(
    found: dict[str, Measured], bounds: dict[str, float], difference: float | None
) -> None:
    checked = check(found, **bounds)
    assert checked.of_share == (found["label_accuracy"].unit == "fraction")
    gain = checked.gain
    assert (gain and gain.difference) == (difference if difference is None else pytest.approx(difference))
    if gain is not None:
        spread = (0.05 - 0.05**2) ** 0.5 / 80**0.5 if difference else 0.0
        assert gain.error == pytest.approx(max(spread, 1 / 80), rel=0.05)


def test_an_equal_model_does_not_pass_for_a_better_one() -> None:
    many = check(accuracy(700, 100, 700, rows=1000, on="holdout"), over_champion=0.0)
    few = check(accuracy(14, 2, 14, rows=20, on="holdout"), over_champion=0.0)
    assert (many.outcome, few.outcome) == ("undecided", "undecided")
    assert many.more_examples is None  # a difference that matters would have shown
    assert few.more_examples


def test_undecided_says_how_many_rows_would_do() -> None:
    found = check(accuracy(16, 2, 14, rows=20, on="holdout"), over_champion=0.0)
    assert found.more_examples is not None
    assert f"about {found.more_examples} more held-out rows would tell" in found.reason
    grown = accuracy(16 * 20, 2 * 20, 14 * 20, rows=400, on="holdout")
    assert 20 + found.more_examples <= 400
    assert check(grown, over_champion=0.0).outcome == "met"


def test_a_verdict_on_held_out_rows_is_given_at_a_tenth_of_alpha() -> None:
    # 5 of 5 discordant pairs: p = 1/32
    assert check(accuracy(10, 5, 5, rows=12), significance=0.05).outcome == "met"
    held_out = accuracy(10, 5, 5, rows=12, on="holdout")
    assert check(held_out, significance=0.05).outcome == "undecided"
    assert check(held_out, significance=0.5).outcome == "met"


def test_no_claim_is_finer_than_two_runs_of_one_model_lie_apart() -> None:
    close = accuracy(800, 100, 700, rows=1000, repeat_spread=0.1)
    assert check(close, over_champion=0.0).outcome == "undecided"
    assert check(accuracy(800, 100, 700, rows=1000, repeat_spread=0.01), over_champion=0.0).passed


def perplexities(candidate: float, champion: float) -> dict[str, Measured]:
    tokens = np.full(200, 20.0)
    noise = np.random.default_rng(1).normal(0, 0.05, (2, 200))
    scores = {
        role: Scores(tokens * (np.log(figure) + one), tokens)
        for role, figure, one in zip(
            (Role.CANDIDATE, Role.CHAMPION), (candidate, champion), noise, strict=True
        )
    }
    return {
        "perplexity": Measured(
            name="perplexity", test="ratio", lower_is_better=True, lowest=1.0, highest=float("inf"),
            on="holdout", scores=scores, clusters=np.arange(200),
        )
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bounds", "outcome"),
    [
        ({"maximum": 5.5}, "met"),
        ({"maximum": 4.5}, "missed"),
        ({"minimum": 1.0}, "met"),
        ({"over_champion": 0.0}, "missed"),
        ({"over_champion": -1.5}, "met"),
    ],
)
def test_less_perplexity_is_an_advantage(bounds: dict[str, float], outcome: str) -> None:
    assert check(perplexities(5.0, 4.0), "perplexity", **bounds).outcome == outcome


def test_a_model_shown_to_be_worse_than_the_champion_misses_a_margin_that_it_may_keep() -> None:
    """14 of 60 rows lost, none gained: the loss may be a tenth or a third."""
    worse = accuracy(40, 3, 54, rows=60, on="holdout")
    found = check(worse, over_champion=-0.15)
    assert found.outcome == "missed"
    assert "is shown to be worse than the champion, and the -0.15 asked for is not shown" in found.reason
    # a loss that is within the margin meets it, whatever else is shown
    assert check(accuracy(660, 60, 700, rows=1000, on="holdout"), over_champion=-0.15).passed
    # the base is no champion, and two measurements of one model may differ by as much
    assert check(worse, over_base=0.7).outcome == "undecided"
    assert check(accuracy(52, 3, 54, rows=60, on="holdout"), over_champion=-0.05).outcome == "undecided"
    noisy = accuracy(40, 3, 54, rows=60, on="holdout", repeat_spread=0.3)
    assert check(noisy, over_champion=-0.15).outcome == "undecided"


def test_first_candidate_is_not_held_against_a_champion_that_is_not_there() -> None:
    found = check(accuracy(800, 100, None, rows=1000), minimum=0.5, over_champion=0.3)
    assert found.passed
    assert "no champion" in found.reason


def test_without_champion_significance_is_against_the_base() -> None:
    found = check(accuracy(800, 100, None, rows=1000), significance=0.05)
    assert found.passed
    assert "against the base" in found.reason


def test_reason_says_figures_intervals_and_bounds() -> None:
    found = check(PLENTY, minimum=0.95, over_base=0.2)
    assert found.observed == 0.8
    assert found.reason == (
        "label_accuracy is 0.8 (0.778 to 0.821): misses the minimum of 0.95; "
        "+0.7 (+0.676 to +0.723) against the base's 0.1 meets the +0.2 asked for"
    )


def test_what_was_not_measured_is_missed() -> None:
    found = check(PLENTY, "valid_output", minimum=0.0)
    assert (found.outcome, found.observed) == ("missed", None)
    assert "not measured" in found.reason


def test_significance_beside_an_absolute_bound_asks_for_no_advantage() -> None:
    equal = accuracy(800, 100, 800, rows=1000)
    assert check(equal, minimum=0.7, significance=0.05).outcome == "met"
    assert check(equal, maximum=0.9, significance=0.05).outcome == "met"
    assert check(equal, significance=0.05).outcome == "undecided"


def test_one_missed_criterion_outweighs_an_open_one() -> None:
    met, missed, undecided = (check(FEW, minimum=one) for one in (0.5, 0.99, 0.75))
    assert outcome_of((met, met)) == "met"
    assert outcome_of((met, undecided)) == "undecided"
    assert outcome_of((met, undecided, missed)) == "missed"
    before = met.model_copy(update={"outcome": None})  # of an earlier release
    assert outcome_of((before,)) == "met"


@pytest.mark.parametrize(
    ("metric", "why"),
    [
        ("politeness", "'politeness' is no known metric; choose from answer_length, "),
        ("domain_language", "domain_language needs task.glossary, which the project does not have"),
        ("regression_accuracy", "it says nothing about any of the rows"),
    ],
)
def test_what_was_not_measured_is_missed_and_says_why(metric: str, why: str) -> None:
    criterion = Criterion(metric=metric, minimum=0.5)
    (checked,) = judge((criterion,), {}, TaskSpec(system_prompt="s"), resolution=0.05, seed=0)
    assert (checked.passed, checked.outcome, checked.observed) == (False, "missed", None)
    assert why in checked.reason


@pytest.mark.parametrize("significance", [0.0, 5e-324, 1e-310, 0.5, 1.0])
@pytest.mark.parametrize("on", ["holdout", "regression"])
@pytest.mark.parametrize("right", [1, 20])
def test_no_significance_that_a_spec_may_state_stops_a_verdict(
    significance: float, on: str, right: int
) -> None:
    rows = np.arange(20) < right
    scores = {Role.CANDIDATE: Scores(0.5 * rows), Role.CHAMPION: Scores(np.zeros(20))}
    mean = Measured(
        name="rouge_l", test="mean", lower_is_better=False, lowest=0.0, highest=1.0, on=on, scores=scores,
        clusters=np.arange(20) // 2,
    )  # fmt: skip
    equal = accuracy(20, 20, 20, rows=20, on=on)
    for bounds in ({}, {"minimum": 0.4}, {"over_champion": 1e308}, {"maximum": -1e308}):
        for found in (equal, {"rouge_l": mean}):
            (name,) = found
            said = check(found, name, significance=significance, **bounds)
            assert CriterionCheck.model_validate_json(said.model_dump_json()) == said


def test_no_difference_matters_that_is_finer_than_two_measurements_of_one_model() -> None:
    """By the resolution alone 60 rows are too few to tell +0.05; with answers that differ by .3 from one time
    to the next nobody asks for so much."""
    few = {"rows": 60, "on": "holdout"}
    assert check(accuracy(42, 3, 42, **few), over_champion=0.0).more_examples
    assert not check(accuracy(42, 3, 42, **few, repeat_spread=0.3), over_champion=0.0).more_examples


def test_a_resolution_that_no_sample_has_leaves_it_open() -> None:
    criterion = Criterion(metric="label_accuracy", minimum=0.799)
    (found,) = judge((criterion,), PLENTY, TaskSpec(system_prompt="s"), resolution=1e-300, seed=0)
    assert found.outcome == "undecided"


def test_a_figure_that_can_never_be_is_missed_and_one_that_may_be_is_undecided() -> None:
    criteria = [Criterion(metric=name, minimum=0.1) for name in ("label_accuracy", "recall_at_k")]
    task = TaskSpec(system_prompt="s")
    not_yet = {one.metric: "there is no index yet" for one in criteria}
    never, later = judge(criteria, {}, task, resolution=0.05, seed=0, not_yet=not_yet)
    assert (never.outcome, later.outcome) == ("missed", "undecided")
    assert "needs task.label_field" in never.reason
    assert later.reason == "recall_at_k was not measured: there is no index yet"


def test_a_refusal_names_first_what_decided_it() -> None:
    def check(reason: str, outcome: str | None, *, passed: bool = False) -> CriterionCheck:
        criterion = Criterion(metric="chrf", minimum=0.5)
        return CriterionCheck(
            criterion=criterion, observed=0.4, passed=passed, reason=reason, outcome=outcome
        )

    checks = (
        check("too few rows", "undecided"),
        check("fine", "met", passed=True),
        check("too low", "missed"),
        check("of an earlier release", None),
        check("too few as well", "undecided"),
    )
    reasons = failures(Scorecard.model_construct(reason=None, checks=checks))
    assert reasons == ("too low", "of an earlier release", "too few rows", "too few as well")


def spending(spent: float, **bounds: float) -> CriterionCheck:
    """60 of 1,000 rows worse."""
    found = accuracy(640, 60, 700, rows=1000, on="holdout")
    criterion = Criterion.model_validate({"metric": "label_accuracy", **bounds})
    (checked,) = judge((criterion,), found, TaskSpec(system_prompt="s"), resolution=0.05, seed=0, spent=spent)
    return checked


def test_what_may_be_lost_already_takes_from_the_margin_and_the_verdict_says_so() -> None:
    assert spending(0.0, over_champion=-0.15).outcome == "met"
    assert spending(0.04, over_champion=-0.15).outcome == "met"
    worn = spending(0.1, over_champion=-0.15)
    assert worn.outcome == "missed"
    assert "the -0.05 asked for (it may lose 0.15, of which 0.1 may be lost already)" in worn.reason
    assert spending(0.3, over_champion=-0.15).reason.count("the +0 asked for (it may lose") == 1
    # who asks for a better model, for no limit, or compares with the base, has no margin to lose
    assert spending(0.1, over_champion=-1.0).outcome == "met"
    assert spending(0.1, over_base=0.5).reason == spending(0.0, over_base=0.5).reason
    assert spending(0.1, over_champion=0.05).reason == spending(0.0, over_champion=0.05).reason


def test_a_margin_that_is_no_share_of_questions_spends_nothing() -> None:
    criterion = Criterion(metric="perplexity", over_champion=-1.5)
    task, found = TaskSpec(system_prompt="s"), perplexities(5.0, 4.0)
    found = {name: replace(one, unit="perplexity") for name, one in found.items()}
    one, other = (
        judge((criterion,), found, task, resolution=0.05, seed=0, spent=spent)[0] for spent in (0.0, 0.1)
    )
    assert one == other
