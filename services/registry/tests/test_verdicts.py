"""An undecided verdict: a stage with its own word, from which a trial leads on that must show more."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import EvalRequested
from tunewheel_contracts.events.lifecycle import CommandRefused, ModelPromoted, Stage
from tunewheel_contracts.formats.rollout_spec import RolloutSpec, ShadowPolicy, UndecidedPolicy
from tunewheel_registry.decision import decide
from tunewheel_registry.lifecycle import apply
from tunewheel_registry.state import State
from tunewheel_testing.desk import Desk

from .conftest import Log


def with_champion(desk: Any, *triggers: Envelope[Any]) -> Log:
    return Log(desk, desk.trained(1), desk.passed(1), *triggers)


def changed(verdict: Envelope[Any], **check: Any) -> Envelope[Any]:
    """Return a verdict with other fields of its check."""
    checks = tuple(one.model_copy(update=check) for one in verdict.data.checks)
    return new_event(verdict.data.model_copy(update={"checks": checks}), source="/test")


def last(log: Log, n: int) -> Any:
    return log.state.models[log.desk.model_id(n)].history[-1]


@pytest.mark.parametrize("registered", [True, False], ids=["registered", "not_registered_yet"])
def test_a_first_verdict_that_is_undecided_leads_to_a_trial_in_shadow(desk: Any, registered: bool):
    log = with_champion(desk, *[desk.trained(2)] * registered)
    *_, doubted, trial = log.play(desk.undecided(2))
    assert (doubted.from_stage, doubted.to_stage, doubted.stage) == (
        Stage.REGISTERED, Stage.EVALUATED, Stage.UNDECIDED,
    )  # fmt: skip
    assert (doubted.held_up, doubted.against, doubted.to_show) == (True, desk.model_id(1), -0.05)
    assert "too few rows" in doubted.reason
    assert (trial.from_stage, trial.to_stage, trial.to_show) == (Stage.EVALUATED, Stage.SHADOW, -0.05)
    assert "not worse than those of desk-000000000001 by 0.05" in trial.reason
    assert log.play(desk.undecided(2)) == []


def test_a_crash_between_the_steps_of_an_undecided_model_is_mended(desk: Any):
    log = with_champion(desk)
    whole = decide(log.state, desk.undecided(2), desk.rollout)
    assert len(whole) == 3  # registered, undecided, on trial
    for done in range(len(whole)):
        state = log.state
        for event in whole[:done]:
            state = apply(state, event)
        again = decide(state, desk.undecided(2), desk.rollout)
        assert [event.event_id() for event in again] == [event.event_id() for event in whole[done:]]


def test_a_trial_that_shows_enough_leads_to_canary_where_nothing_need_be_shown(desk: Any):
    log = with_champion(desk, desk.undecided(2))
    (step,) = log.play(desk.judged(2, "shadow", "passed"))
    assert (step.to_stage, step.to_show) == (Stage.CANARY, None)
    log.play(desk.judged(2, "canary", "passed"))
    assert log.stages() == {1: "retired", 2: "production"}


def test_a_trial_whose_answers_nobody_compared_leads_nowhere(desk: Any):
    """A monitor of an earlier release judges such a trial by errors, form and latency alone."""
    log = with_champion(desk, desk.undecided(2))
    (step,) = log.play(desk.judged(2, "shadow", "passed", compared=False))
    assert (step.to_stage, "its answers were not compared" in step.reason) == (Stage.RETIRED, True)
    plain = with_champion(Desk(rollout=RolloutSpec(shadow=ShadowPolicy(enabled=True))))
    plain.play(desk.judged(1, "shadow", "passed", compared=False))
    assert plain.stages() == {1: "canary"}


def test_a_trial_that_shows_nothing_within_its_budget_retires_the_model_with_the_reason(desk: Any):
    log = with_champion(desk, desk.undecided(2))
    log.play(desk.judged(2, "shadow", "failed", decided_by="deadline"))
    assert log.stages() == {1: "production", 2: "retired"}


@pytest.mark.parametrize(
    ("bounds", "margin", "to_show"),
    [
        ({"over_champion": -0.15}, 0.1, -0.15),
        ({"over_champion": 0.02}, 0.1, 0.0),
        ({"minimum": 0.9}, 0.2, -0.2),
        ({"over_base": 0.2}, 0.1, -0.1),
        ({"metric": "perplexity", "over_champion": -2.0}, 0.1, -0.1),
        ({"metric": "words_per_answer", "over_champion": -5.0, "of_share": False}, 0.1, -0.1),
        ({"metric": "no_perplexity", "over_champion": -0.2, "of_share": True}, 0.1, -0.2),
    ],
    ids=["not_worse", "better", "no_bound", "base_alone", "no_share", "own_unit", "own_share"],
)
def test_the_trial_must_show_what_the_undecided_criterion_asks_for(
    bounds: dict[str, Any], margin: float, to_show: float
):
    desk = Desk(rollout=RolloutSpec(shadow=ShadowPolicy(margin=margin)))
    log = with_champion(desk)
    assert log.play(desk.undecided(2, **bounds))[-1].to_show == to_show


def test_of_several_undecided_criteria_the_strictest_counts_and_none_that_was_met(desk: Any):
    verdict = desk.undecided(2, over_champion=-0.15)
    (wide,) = verdict.data.checks
    narrow = wide.model_copy(update={"criterion": wide.criterion.model_copy(update={"over_champion": -0.1})})
    met = wide.model_copy(
        update={
            "criterion": wide.criterion.model_copy(update={"over_champion": 0.0}), "outcome": "met",
        }
    )  # fmt: skip
    told = new_event(verdict.data.model_copy(update={"checks": (wide, narrow, met)}), source="/test")
    assert with_champion(desk).play(told)[-1].to_show == -0.1


def test_without_a_champion_the_base_is_the_rival(desk: Any):
    log = Log(desk, desk.undecided(1, over_base=-0.1, over_champion=-0.01))
    assert log.stages() == {1: "shadow"}
    assert log.events[-1].to_show == -0.1
    log.play(desk.judged(1, "shadow", "passed"), desk.judged(1, "canary", "passed"))
    assert log.stages() == {1: "production"}


def test_what_the_champions_may_have_lost_makes_the_bound_stricter(desk: Any):
    log = with_champion(desk)
    lost = {"gain": {"difference": -0.03, "error": 0.0, "of": "holdout"}}
    passed = desk.passed(2)
    checks = [one.model_dump() | lost for one in passed.data.checks]
    log.play(
        new_event(
            type(passed.data).model_validate(passed.data.model_dump() | {"checks": checks}), source="/t"
        )
    )
    log.play(desk.judged(2, "canary", "passed"))
    assert log.play(desk.undecided(3))[-1].to_show == pytest.approx(-0.02)


WAITS = {
    "rows_worn_out": {"judged": False},
    "nothing_measured": {"observed": None},
    "disabled": {"enabled": False},
    "review_required": {"review": True},
}


def waiting(why: str) -> tuple[Log, list[Any]]:
    told = WAITS[why]
    policy = UndecidedPolicy(enabled=told.get("enabled", True))
    desk = Desk(rollout=RolloutSpec(undecided=policy))
    log = with_champion(desk)
    verdict = desk.undecided(2, judged=told.get("judged", True))
    if "observed" in told:
        verdict = changed(verdict, observed=None)
    decided = decide(log.state, verdict, desk.rollout, review_required="review" in told)
    for event in decided:
        log.state = apply(log.state, event)
    return log, decided


@pytest.mark.parametrize("why", WAITS)
def test_a_model_without_a_trial_waits_and_its_reason_names_the_ways_out(why: str):
    log, (_, doubted) = waiting(why)
    assert (log.stages(), doubted.to_show) == ({1: "production", 2: "undecided"}, None)
    assert "promote it by command with force, or build a version with a larger holdout" in doubted.reason
    assert {"disabled": "rollout.undecided", "review_required": "review.required"}.get(
        why, ""
    ) in doubted.reason


def test_a_model_that_people_approved_may_show_the_rest_in_a_trial(desk: Any):
    log = Log(desk, desk.trained(1), desk.trained(2), desk.passed(1, against=0), desk.passed(2, against=0))
    doubted, trial = decide(log.state, desk.undecided(2, against=1), desk.rollout, review_required=True)
    assert isinstance(doubted, ModelPromoted)
    assert isinstance(trial, ModelPromoted)
    assert (doubted.stage, trial.to_stage) == (Stage.UNDECIDED, Stage.SHADOW)


def test_a_later_pass_takes_the_doubt_away(desk: Any):
    log, _ = waiting("rows_worn_out")
    log.play(desk.passed(2, against=1))
    assert log.stages() == {1: "production", 2: "canary"}
    on_trial = with_champion(desk, desk.undecided(2))
    (step,) = on_trial.play(desk.passed(2, against=1))
    assert (step.from_stage, step.to_stage, step.to_show) == (Stage.SHADOW, Stage.SHADOW, None)
    assert not on_trial.state.models[desk.model_id(2)].is_doubted


@pytest.mark.parametrize(("on_trial", "ends"), [(False, "rejected"), (True, "rolled_back")])
def test_a_later_failure_rejects(desk: Any, on_trial: bool, ends: str):
    log = with_champion(desk, desk.undecided(2)) if on_trial else waiting("rows_worn_out")[0]
    log.play(desk.failed(2, against=1))
    assert log.stages() == {1: "production", 2: ends}


def test_a_later_verdict_on_other_rows_that_is_undecided_counts(desk: Any):
    log, _ = waiting("rows_worn_out")
    log.play(desk.undecided(2, against=1))
    assert log.stages() == {1: "production", 2: "shadow"}


def queue(desk: Any) -> Log:
    """Return a log in which the second version is in canary and an undecided third waits for its turn."""
    log = with_champion(desk, desk.passed(2))
    log.play(desk.undecided(3, against=1))
    assert log.stages() == {1: "production", 2: "canary", 3: "undecided"}
    assert "but waits: desk-000000000002 is in canary" in last(log, 3).reason
    return log


def test_an_undecided_model_waits_for_the_trial_before_it(desk: Any):
    log = queue(desk)
    log.play(desk.judged(2, "canary", "failed"))
    assert log.stages() == {1: "production", 2: "rolled_back", 3: "shadow"}


def test_an_undecided_model_is_judged_again_against_another_champion(desk: Any):
    log = queue(desk)
    log.play(desk.judged(2, "canary", "passed"))
    (asked,) = (event for event in log.events if isinstance(event, EvalRequested))
    assert (asked.run_id, asked.against) == ("run-3", desk.model_id(2))
    assert "was undecided" in asked.reason
    assert log.stages() == {1: "retired", 2: "production", 3: "undecided"}
    log.play(desk.undecided(3, against=2, over_champion=-0.2))
    assert (log.stages()[3], log.events[-1].to_show) == ("shadow", -0.2)


def test_a_model_that_passed_goes_before_an_undecided_one_and_keeps_its_place_behind_its_trial(desk: Any):
    log = queue(desk)
    log.play(desk.passed(4, against=1), desk.undecided(5, against=1), desk.judged(2, "canary", "failed"))
    assert log.stages() == {1: "production", 2: "rolled_back", 3: "retired", 4: "canary", 5: "undecided"}
    behind = with_champion(desk, desk.trained(2), desk.undecided(3, against=1), desk.passed(2, against=1))
    assert behind.stages() == {1: "production", 2: "evaluated", 3: "shadow"}
    behind.play(desk.judged(3, "shadow", "failed", decided_by="deadline"))
    assert behind.stages() == {1: "production", 2: "canary", 3: "retired"}


@pytest.mark.parametrize("on_trial", [False, True])
def test_an_undecided_model_is_promoted_only_by_force(desk: Any, on_trial: bool):
    log = with_champion(desk, desk.undecided(2)) if on_trial else waiting("rows_worn_out")[0]
    (refusal,) = log.play(desk.commanded(2, "promote"))
    assert isinstance(refusal, CommandRefused)
    stage = "shadow" if on_trial else "undecided"
    assert refusal.reason == (
        f"{desk.model_id(2)} is {stage}: {last(log, 2).reason}; to promote it anyway, use force"
    )
    log.play(desk.commanded(2, "promote", request="two", force=True))
    assert log.stages() == {1: "retired", 2: "production"}


@pytest.mark.parametrize(("action", "ends"), [("retire", "retired"), ("reject", "rejected")])
def test_an_undecided_model_is_taken_out_by_a_person(action: str, ends: str):
    log, _ = waiting("rows_worn_out")
    log.play(log.desk.commanded(2, action))
    assert log.stages() == {1: "production", 2: ends}


def test_earlier_releases_read_an_undecided_model_as_one_that_waits_after_its_verdict(desk: Any):
    log, (_, doubted) = waiting("disabled")
    state: State = with_champion(log.desk, log.desk.trained(2)).state
    known = doubted.model_copy(update={"undecided": False, "to_show": None, "gain": None})
    model = apply(state, known).models[log.desk.model_id(2)]
    assert (model.stage, model.held_up_in, model.beaten) == (Stage.EVALUATED, Stage.EVALUATED, frozenset())
