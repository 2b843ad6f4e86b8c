"""Which turn an alarm leads to, and what it waits for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import BuildReason
from tunewheel_contracts.events.production import AlarmOpened
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_turns.deciding import MOST_ALARMS, RETRY_AFTER, Step, decide, hold
from tunewheel_turns.dispatch import Dispatch, tell
from tunewheel_turns.readiness import RETRIES
from tunewheel_turns.state import ended_at
from tunewheel_wheel.wheel import STALE

Make = Callable[..., Any]
CLUSTER = {"prompts": 9, "share": 0.1, "centroid": [1.0, 0.0], "radius": 0.3}
DOCUMENTS = {"suggested_action": "update_documents"}
COLLECT = {"suggested_action": "collect_labels", "cluster": CLUSTER}
NOTHING_THERE = DOCUMENTS | {"cluster": {"prompts": 90, "share": 0.2, "completion_ids": ["c-1"]}}


@pytest.mark.parametrize(
    ("drift", "alarm", "step"),
    [
        ({}, {"suggested_action": "retrain"}, Step.TURN),
        ({}, COLLECT, Step.LABELS),
        ({}, {"suggested_action": "collect_labels"}, Step.INVESTIGATE),
        ({}, DOCUMENTS, Step.INVESTIGATE),
        ({}, NOTHING_THERE, Step.INVESTIGATE),
        # training writes no document, whatever holds for the family
        ({"turns": {"follow": {"input": "retrain"}}}, NOTHING_THERE, Step.INVESTIGATE),
        ({"turns": {"follow": {"update_documents": "collect_labels"}}}, NOTHING_THERE, Step.INVESTIGATE),
        ({}, {"suggested_action": "investigate"}, Step.INVESTIGATE),
        ({}, {"suggested_action": "pray"}, Step.INVESTIGATE),
        ({"rebuild": False}, {}, Step.NOTHING),
        ({"enabled": False}, {}, Step.NOTHING),
        ({"turns": {"follow": {"novelty": "nothing"}}}, {}, Step.NOTHING),
        ({"turns": {"follow": {"input": "investigate"}}}, {}, Step.INVESTIGATE),
        ({"turns": {"follow": {"input": "investigate", "novelty": "retrain"}}}, {}, Step.TURN),
        ({"turns": {"follow": {"retrain": "collect_labels"}}}, {"cluster": CLUSTER}, Step.LABELS),
        ({"turns": {"follow": {"update_documents": "retrain"}}}, DOCUMENTS, Step.TURN),
    ],
)  # fmt: skip
def test_the_spec_says_what_an_alarm_leads_to(log: Make, drift: Any, alarm: Any, step: Step) -> None:
    desk = log(drift)
    desk.alarm(**alarm)
    assert desk.decide().step is step


def test_no_alarm_leads_to_nothing(log: Make) -> None:
    desk = log()
    assert desk.decide().step is Step.CALM
    desk.alarm()
    desk.resolved()
    assert desk.decide().step is Step.CALM


def test_persistent_drift_is_one_turn(log: Make) -> None:
    """An alarm of each detector, and one more in every window, while the turn goes on."""
    desk = log(cooldown_seconds=0)
    desk.alarm("alarm-0")
    request = desk.begin()
    for number in range(1, 60):
        desk.alarm(f"alarm-{number}")
        decision = desk.decide()
        assert decision.step is Step.IN_FLIGHT
        assert decision.until == desk.state().turns[0].news_at + desk.state().stale
        if number == 30:
            desk.version(request, "ds-1")
            desk.train("ds-1")
    desk.trained("ds-1")
    desk.move("ds-1", "production")
    for number in range(60):
        desk.resolved(f"alarm-{number}")
    assert desk.decide().step is Step.CALM


def test_alarms_that_came_during_a_turn_wait_for_its_end(log: Make) -> None:
    desk = log(cooldown_seconds=7200)
    desk.alarm("alarm-1")
    request = desk.begin()
    desk.alarm("alarm-2")
    desk.serve(request, "ds-1")
    desk.resolved("alarm-1")
    served = desk.decide()
    assert served.step is Step.IN_FLIGHT
    assert "whether it helped is not known yet" in served.evidence
    assert hold(desk.state(), BuildReason.COUNT, desk.now) is None, "nothing is trained or tried any more"
    desk.complete("ds-1", "helped")
    waiting = desk.decide()
    assert (waiting.step, waiting.alarms) == (Step.COOLDOWN, ("alarm-2",))
    assert waiting.until == desk.now + timedelta(hours=2)
    desk.now = waiting.until
    due = desk.decide()
    assert (due.step, due.alarms, due.request) == (Step.TURN, ("alarm-2",), "alarm-2")


def test_records_cause_no_cooldown(log: Make) -> None:
    desk = log()
    desk.serve(desk.ask(), "ds-1")
    desk.alarm()
    assert desk.decide().step is Step.TURN


def test_records_that_were_built_beside_an_alarm_are_looked_at_before_the_same_are_built_again(
    log: Make,
) -> None:
    desk = log(min_labels=5, cooldown_seconds=7200)
    desk.alarm(**COLLECT)
    desk.serve(desk.ask(), "ds-1")
    desk.labelled = {"alarm-1": 5}
    assert desk.decide().step is Step.IN_FLIGHT
    desk.complete("ds-1", "undecided")
    cooling = desk.decide()
    assert (cooling.step, cooling.until) == (Step.COOLDOWN, desk.now + timedelta(hours=2))
    assert decide(desk.state(), cooling.until).step is Step.TURN
    desk.resolved()
    assert desk.decide().step is Step.CALM


def test_an_alarm_that_passes_quickly_leads_to_nothing(log: Make) -> None:
    desk = log(alarm_seconds=600)
    raised = desk.alarm()
    waiting = desk.decide()
    assert (waiting.step, waiting.until) == (Step.SETTLING, raised.time + timedelta(minutes=10))
    desk.resolved()
    assert decide(desk.state(), waiting.until).step is Step.CALM
    again = desk.alarm("alarm-2")
    assert decide(desk.state(), again.time + timedelta(minutes=10)).step is Step.TURN


def test_labels_come_before_a_turn(log: Make) -> None:
    desk = log(min_labels=12)
    desk.alarm(**COLLECT)
    desk.labelled = {"alarm-1": 11}
    waiting = desk.decide()
    assert waiting.step is Step.LABELS
    assert waiting.evidence == "alarm-1 (novelty): 11 of 12 labels near the cluster"
    desk.labelled = {"alarm-1": 12}
    assert desk.decide().step is Step.TURN


def test_labels_come_first_also_for_alarms_that_could_do_without(log: Make) -> None:
    desk = log(min_labels=12)
    desk.alarm("alarm-1")
    desk.alarm("alarm-2", **COLLECT)
    waiting = desk.decide()
    assert (waiting.step, waiting.alarms) == (Step.LABELS, ("alarm-2",))
    assert decide(desk.state(), desk.now + STALE).alarms == ("alarm-1",), "nobody answers"
    desk.labelled = {"alarm-2": 12}
    due = desk.decide()
    assert (due.step, due.alarms, due.request) == (Step.TURN, ("alarm-1", "alarm-2"), "alarm-1")


@pytest.mark.parametrize("end", ["rejected", "failed", "undecided", "rolled_back", "did not help"])
def test_an_alarm_is_tried_again_with_more_labels_and_not_with_the_same(log: Make, end: str) -> None:
    desk = log(min_labels=10, cooldown_seconds=0)
    desk.alarm(**COLLECT)
    desk.labelled = {"alarm-1": 14}
    first = desk.begin()
    end_badly(desk, first, end)
    assert desk.decide().step is Step.LABELS
    assert "14 of 20 labels" in desk.decide().evidence
    desk.labelled = {"alarm-1": 20}
    second = desk.begin()
    assert second.data.request == f"alarm-1 again, after {first.id}"
    assert second.id != first.id
    assert desk.decide().step is Step.IN_FLIGHT


def test_a_command_that_made_no_version_used_up_no_labels(log: Make) -> None:
    desk = log(min_labels=10)
    desk.alarm(**COLLECT)
    desk.reject(desk.ask(BuildReason.COMMAND, alarm_ids=("alarm-1",)))
    assert "0 of 10 labels" in desk.decide().evidence
    desk.labelled = {"alarm-1": 10}
    assert desk.decide().step is Step.TURN


@pytest.mark.parametrize("end", ["rejected", "failed", "undecided", "rolled_back", "did not help"])
def test_an_alarm_is_tried_again_where_the_same_records_are_trained_otherwise(log: Make, end: str) -> None:
    desk = log(cooldown_seconds=0)
    desk.alarm()
    end_badly(desk, desk.begin(), end)
    for part, edit in (
        ("drift", {"window": 50, "turns": {"cooldown_seconds": 0, "min_labels": 7}}),
        ("rollout", {"canary": {"deadline_seconds": 60}}),
        ("dataset", {"build": {"min_new_records": 7}}),
        ("review", {"sample": 9}),
    ):
        desk.spec = edited(desk.spec, part, edit)
        refused = desk.decide()
        assert refused.step is Step.TRIED, f"an edit of {part} trains the same again"
    assert "run `tunewheel dataset build`" in refused.evidence
    desk.spec = edited(desk.spec, "train", {"epochs": 3})
    assert desk.decide().step is Step.TURN
    end_badly(desk, desk.begin(), end, "ds-2")
    assert desk.decide().step is Step.TRIED


def test_labels_are_tried_again_where_they_are_trained_otherwise(log: Make) -> None:
    desk = log(min_labels=10, cooldown_seconds=0)
    desk.alarm(**COLLECT)
    desk.labelled = {"alarm-1": 14}
    end_badly(desk, desk.begin(), "failed")
    desk.spec = edited(desk.spec, "rollout", {"canary": {"deadline_seconds": 60}})
    assert desk.decide().step is Step.LABELS
    desk.spec = edited(desk.spec, "task", {"system_prompt": "Answer as JSON, politely."})
    assert desk.decide().step is Step.TURN


def test_a_turn_of_an_earlier_release_is_compared_by_the_whole_spec(log: Make) -> None:
    desk = log(cooldown_seconds=0)
    desk.tells = {"spec_sha256"}
    desk.alarm()
    desk.reject(desk.begin())
    assert desk.decide().step is Step.TRIED
    desk.spec = edited(desk.spec, "review", {"sample": 9})
    assert desk.decide().step is Step.TURN


def edited(spec: ProjectSpec, part: str, edit: dict[str, Any]) -> ProjectSpec:
    told = spec.model_dump(mode="json")
    return ProjectSpec.model_validate(told | {part: told[part] | edit})


def end_badly(desk: Any, request: Any, how: str, name: str = "ds-1") -> None:
    if how == "rejected":
        desk.reject(request)
        return
    if how in ("failed", "undecided"):
        desk.version(request, name)
        desk.train(name)
        desk.trained(name)
        desk.judge(name, how)
        return
    desk.serve(request, name)
    if how == "rolled_back":
        desk.roll_back(name)
    else:
        desk.complete(name, how)


def lose(desk: Any, request: Any, how: str, name: str) -> None:
    """Let the machinery fail a turn."""
    if how == "lost GPU":
        desk.version(request, name)
        desk.train(name)
        desk.say("train.failed", like="diverged", run_id=f"run-{name}", dataset_id=name)
    elif how == "no traffic":
        desk.serve(request, name)
        desk.events.pop()
        desk.move(name, "retired")
    else:
        desk.reject(desk.ask())  # answered, so the request before it is in a dead letter


@pytest.mark.parametrize("alarm", [{}, COLLECT], ids=["retrain", "labels"])
@pytest.mark.parametrize("how", ["lost GPU", "no traffic", "dead letter"])
def test_a_failure_of_the_machinery_uses_up_neither_labels_nor_the_try(
    log: Make, how: str, alarm: dict[str, Any]
) -> None:
    desk = log(min_labels=20, cooldown_seconds=0)
    desk.alarm(**alarm)
    desk.labelled = {"alarm-1": 25}
    for number in range(RETRIES):
        lose(desk, desk.begin(), how, f"ds-{number}")
        waits = desk.decide()
        assert waits.step is Step.COOLDOWN
        assert waits.until is not None
        wait = waits.until - ended_at(desk.state().turns_for(desk.state().alarms[0])[-1])
        assert wait == RETRY_AFTER * 2**number
        desk.now = waits.until
        assert desk.decide().step is Step.TURN
    lose(desk, desk.begin(), how, "ds-last")
    desk.now += timedelta(days=20)
    stands = desk.decide()
    assert stands.step is Step.BROKEN
    assert ("25 of 20 labels" in stands.evidence) == bool(alarm)
    desk.spec = edited(desk.spec, "train", {"epochs": 3})
    assert desk.decide().step is (Step.BROKEN if how == "dead letter" else Step.TURN)
    end_badly(desk, desk.ask(BuildReason.COMMAND, alarm_ids=("alarm-1",)), "failed", "ds-told")
    assert desk.decide().step is (Step.LABELS if alarm else Step.TRIED), "a person had it mended"


def test_a_retry_keeps_to_the_budget_and_a_verdict_ends_the_row_of_failures(log: Make) -> None:
    desk = log(min_labels=20, cooldown_seconds=0, budget={"gpu_hours": 0.001})
    desk.alarm(**COLLECT)
    desk.labelled = {"alarm-1": 25}
    lose(desk, desk.begin(), "lost GPU", "ds-1")
    desk.now += RETRY_AFTER
    assert desk.decide().step is Step.BUDGET
    desk.spec = edited(desk.spec, "drift", {"turns": {"cooldown_seconds": 0, "min_labels": 20}})
    end_badly(desk, desk.begin(), "failed", "ds-2")
    assert "25 of 40 labels" in desk.decide().evidence


def test_a_person_who_asks_takes_the_alarms_along(log: Make) -> None:
    desk = log(approval=True)
    desk.alarm()
    waiting = desk.decide()
    assert waiting.step is Step.APPROVAL
    assert waiting.evidence == "alarm-1 (novelty): retrain"
    desk.ask(BuildReason.COMMAND, alarm_ids=waiting.alarms)
    assert desk.decide().step is Step.IN_FLIGHT


@pytest.mark.parametrize("reason", [BuildReason.COUNT, BuildReason.QUIET])
def test_records_do_not_pass_by_the_person_who_approves(log: Make, reason: BuildReason) -> None:
    desk = log(approval=True, min_labels=5)
    assert hold(desk.state(), reason, desk.now) is None
    desk.alarm(**COLLECT)
    desk.labelled = {"alarm-1": 4}
    assert hold(desk.state(), BuildReason.COUNT, desk.now) is None
    desk.labelled = {"alarm-1": 5}
    held = hold(desk.state(), reason, desk.now)
    assert held == "waits for approval: alarm-1 (novelty): 5 of 5 labels near the cluster"
    desk.reject(desk.ask(BuildReason.COMMAND, alarm_ids=("alarm-1",)))
    desk.resolved()
    assert hold(desk.state(), reason, desk.now) is None


BUDGET = {"budget": {"gpu_hours": 1.0}}
"""The example's run is planned for .0059 hours and costs .0036 dollars."""


@pytest.mark.parametrize(
    ("budget", "wall_seconds", "step"),
    [
        ({"gpu_hours": 1.0}, 1700, Step.TURN),
        ({"gpu_hours": 1.0}, 1900, Step.BUDGET),
        ({"dollars": 0.6}, 1700, Step.TURN),
        ({"dollars": 0.5}, 1700, Step.BUDGET),
        ({}, 10**6, Step.TURN),
    ],
)
def test_a_turn_that_would_break_the_months_budget_waits_for_the_next_month(
    log: Make, budget: Any, wall_seconds: float, step: Step
) -> None:
    desk = log(budget=budget)
    name = desk.version(desk.ask(), "ds-1")
    desk.train(name)
    desk.trained(name, wall_seconds=wall_seconds)
    desk.move(name, "production")
    desk.alarm()
    decision = desk.decide()
    assert decision.step is step
    if step is Step.BUDGET:
        (limit,) = budget
        assert decision.evidence.startswith("budget spent: 0.")
        assert f"raise drift.turns.budget.{limit}" in decision.evidence
        assert decision.until == datetime(2026, 4, 1, tzinfo=UTC)
        assert hold(desk.state(), BuildReason.COUNT, desk.now) == decision.evidence
        assert decide(desk.state(), decision.until).step is Step.TURN
        assert hold(desk.state(), BuildReason.COUNT, decision.until) is None


@pytest.mark.parametrize(
    ("budget", "step"),
    [
        ({"gpu_hours": 1.5}, Step.TURN),
        ({"gpu_hours": 0.9}, Step.BUDGET),
        ({"dollars": 3.0}, Step.TURN),
        ({"dollars": 1.4}, Step.BUDGET),
    ],
)
def test_recipes_that_were_tried_count_in_the_month_in_which_their_sweep_began(
    log: Make, budget: Any, step: Step
) -> None:
    desk = log(budget=budget)
    desk.serve(desk.ask(), "ds-1")

    def tried(measured: int, **told: Any) -> None:
        run = {"run_id": "sweep-1-1", "changes": {}, "part": measured / 2, **told}
        desk.say(
            "sweep.progressed", like="training", sweep_id="sweep-1", measured=measured, runs=[run], best=None,
            dollars=1.5 * measured / 2,
        )  # fmt: skip

    for measured in (0, 2, 1):  # in any order
        tried(measured, gpu_hours=measured / 2)
    desk.alarm()
    assert desk.decide().step is step
    assert decide(desk.state(), datetime(2026, 4, 1, tzinfo=UTC)).step is Step.TURN
    ((name, spent),) = tell(desk.state(), desk.decide(), "desk", desk.now).spent.items()
    assert spent == pytest.approx({"gpu_hours": 1.0, "dollars": 1.5}[name], abs=0.3)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_what_a_sweep_took_until_it_was_ended_counts(log: Make, state: str, order: tuple[int, ...]) -> None:
    desk = log(budget={"gpu_hours": 1.5})
    desk.serve(desk.ask(), "ds-1")
    for at in order:
        run = {"run_id": "sweep-1-1", "changes": {}, "gpu_hours": (0.0, 2.0)[at]}
        desk.say(
            "sweep.progressed", like="training", sweep_id="sweep-1", measured=0, runs=[run], best=None,
            state=("training", state)[at],
        )  # fmt: skip
    desk.alarm()
    assert desk.decide().step is Step.BUDGET


def test_a_run_that_was_dropped_before_it_began_does_not_make_the_next_one_free(log: Make) -> None:
    desk = log(**BUDGET)
    for name, told in (("ds-1", {"wall_seconds": 3000}), ("ds-2", None)):
        desk.version(desk.ask(), name)
        desk.train(name)
        if told is not None:
            desk.trained(name, **told)
            desk.move(name, "production")
    desk.say("train.failed", like="superseded", run_id="run-ds-2", dataset_id="ds-2", superseded_by="ds-1")
    desk.alarm()
    assert desk.decide().step is Step.BUDGET


def test_a_run_that_cost_nothing_makes_the_next_one_free(log: Make) -> None:
    """A project that trained on GPUs trains on a processor now."""
    desk = log(**BUDGET)
    for name, plan in (("ds-1", "qlora-on-a-gpu"), ("ds-2", "lora-on-two-cores")):
        desk.version(desk.ask(), name)
        desk.train(name, plan=plan)
        desk.trained(name, wall_seconds=3000)
        desk.move(name, "production")
    desk.alarm()
    assert desk.decide().step is Step.TURN


@pytest.mark.parametrize(
    ("canary", "undecided", "days"),
    [
        ({}, {"enabled": False}, 8),
        ({"deadline_seconds": 86_400}, {"enabled": False}, 7),
        ({"enabled": False}, {"enabled": False}, 7),
        ({"enabled": False}, {"days": 9}, 10),
    ],
)
def test_a_trial_may_be_silent_until_its_deadline(log: Make, canary: Any, undecided: Any, days: int) -> None:
    desk = log()
    told = desk.spec.model_dump(mode="json")
    told["rollout"]["canary"] |= canary
    told["rollout"]["undecided"] = undecided
    desk.spec = ProjectSpec.model_validate(told)
    desk.version(desk.ask(), "ds-1")
    desk.train("ds-1")
    desk.alarm()
    silent = desk.state().turns[0].news_at + timedelta(days=days)
    assert decide(desk.state(), silent - timedelta(seconds=1)).step is Step.IN_FLIGHT
    assert decide(desk.state(), silent).step is Step.TURN


def test_a_turn_that_tells_nothing_for_too_long_holds_nobody_up(log: Make) -> None:
    desk = log()
    desk.serve(desk.ask(), "ds-0")
    desk.version(desk.ask(), "ds-1")
    desk.train("ds-1")
    desk.alarm()
    assert desk.decide().step is Step.IN_FLIGHT
    assert hold(desk.state(), BuildReason.COUNT, desk.now) == "one turn at a time: ds-1 is under way"
    later = desk.now + desk.state().stale
    assert decide(desk.state(), later).step is Step.TURN
    assert hold(desk.state(), BuildReason.COUNT, later) is None


def after_a_month(desk: Any, **alarm: Any) -> Any:
    """Open an alarm, and let the log delete its ``drift.detected`` 31 days later."""
    desk.events.remove(raised := desk.alarm(**alarm))
    desk.events.append(new_event(AlarmOpened.of(raised.data), source="/test", time=raised.time))
    desk.now = raised.time + timedelta(days=31)
    return desk


def test_labels_that_come_after_a_month_still_begin_a_turn(log: Make) -> None:
    desk = after_a_month(log(min_labels=20), **COLLECT)
    assert desk.decide().step is Step.LABELS
    desk.labelled = {"alarm-1": 500}
    assert desk.decide().step is Step.TURN


def test_an_alarm_of_last_month_waits_for_approval_and_is_named_by_the_persons_build(log: Make) -> None:
    desk = after_a_month(log(approval=True))
    assert desk.decide().step is Step.APPROVAL
    assert by_command(desk) == ("alarm-1",)
    assert desk.ask(BuildReason.COMMAND, alarm_ids=("alarm-1",)).data.alarm_ids == ("alarm-1",)
    assert desk.decide().step is Step.IN_FLIGHT


def test_an_alarm_waits_for_the_next_months_budget(log: Make) -> None:
    desk = log(budget={"gpu_hours": 0.001})
    desk.now = datetime(2026, 12, 1, tzinfo=UTC)
    desk.serve(desk.ask(), "ds-0")
    desk.complete("ds-0", "promoted")
    after_a_month(desk)
    desk.now -= timedelta(hours=12)
    waits = desk.decide()
    assert (waits.step, waits.until) == (Step.BUDGET, datetime(2027, 1, 1, tzinfo=UTC))
    desk.spec = edited(desk.spec, "drift", {"turns": {"budget": {"gpu_hours": 100}}})
    assert decide(desk.state(), datetime(2027, 1, 1, tzinfo=UTC)).step is Step.TURN


def by_command(desk: Any) -> tuple[str, ...]:
    return Dispatch(desk.facts(), lambda *_: {}, clock=lambda: desk.now).mended_by_command(desk.spec)


def test_a_turn_is_for_no_more_alarms_than_its_request_can_name(log: Make) -> None:
    desk = log(cooldown_seconds=0)
    names = tuple(f"alarm-{number:02}" for number in range(MOST_ALARMS + 1))
    for name in names:
        desk.alarm(name)
    assert by_command(desk) == names[:-1]
    first = desk.begin()
    assert first.data.alarm_ids == names[:-1]
    desk.reject(first)
    assert desk.decide().alarms == names[-1:], "the turn after it"


@pytest.mark.parametrize("begun", [True, False])
def test_records_wait_for_a_turn_whose_training_began(log: Make, begun: bool) -> None:
    """One that still waits for a machine is superseded by a newer version instead."""
    desk = log()
    desk.version(desk.ask(), "ds-1")
    if begun:
        desk.train("ds-1")
    assert (hold(desk.state(), BuildReason.COUNT, desk.now) is not None) is begun
    desk.trained("ds-1")
    desk.judge("ds-1", "failed")
    assert hold(desk.state(), BuildReason.COUNT, desk.now) is None


def test_silence_builds_no_labels_that_a_turn_waits_for(log: Make) -> None:
    desk = log(min_labels=5, cooldown_seconds=0)
    desk.alarm(**COLLECT)
    held = hold(desk.state(), BuildReason.QUIET, desk.now)
    assert held == "the labels belong to a turn: alarm-1 (novelty): 0 of 5 labels near the cluster"
    assert hold(desk.state(), BuildReason.COUNT, desk.now) is None
    assert hold(desk.state(), BuildReason.QUIET, desk.now + STALE) is None, "nobody answers"
    desk.resolved()
    assert hold(desk.state(), BuildReason.QUIET, desk.now) is None


@pytest.mark.parametrize("drift", [{"rebuild": False}, {"turns": {"follow": {"novelty": "retrain"}}}])
def test_silence_builds_where_no_turn_waits_for_labels(log: Make, drift: Any) -> None:
    desk = log(drift)
    desk.alarm(**COLLECT)
    assert hold(desk.state(), BuildReason.QUIET, desk.now) is None


def test_a_run_that_is_trained_again_holds_other_builds_up(log: Make) -> None:
    desk = log()
    desk.alarm()
    request = desk.ask()
    desk.version(request, "ds-1")
    desk.train("ds-1")
    assert "ds-1 is under way" in (hold(desk.state(), BuildReason.COUNT, desk.now) or "")
    desk.say("train.failed", like="diverged", run_id="run-ds-1", dataset_id="ds-1")
    desk.complete("ds-1", "failed")
    assert hold(desk.state(), BuildReason.COUNT, desk.now) is None
    desk.say("train.started", like="resumed", run_id="run-ds-1", dataset_id="ds-1", resumed_from_step=0)
    assert "ds-1 is under way" in (hold(desk.state(), BuildReason.COUNT, desk.now) or "")
    assert desk.decide().step is Step.IN_FLIGHT
    desk.trained("ds-1")
    desk.move("ds-1", "production")
    assert desk.decide().step is Step.IN_FLIGHT, "whether it helped is not told yet"
    desk.complete("ds-1", "helped", revision=1)
    assert desk.decide().step is not Step.IN_FLIGHT


def test_the_same_records_again_end_nothing_of_the_version_that_is_trained(log: Make) -> None:
    desk = log()
    desk.version(desk.ask(), "ds-1")
    desk.train("ds-1")
    desk.version(desk.ask(), "ds-1")
    desk.complete("ds-1", "unchanged")
    assert "ds-1 is under way" in (hold(desk.state(), BuildReason.COUNT, desk.now) or "")
