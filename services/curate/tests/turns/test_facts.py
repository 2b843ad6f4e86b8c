"""Turns put together from the log: in whatever order its topics are read, with whatever comes twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tunewheel_contracts.events.data import BuildReason
from tunewheel_turns.deciding import Step, decide
from tunewheel_turns.facts import TurnFacts
from tunewheel_turns.state import ended_at, outcome

Make = Callable[..., Any]


def eventful(desk: Any) -> Any:
    """A log with a turn of every end, and one that goes on."""
    desk.serve(desk.ask(), "ds-1")
    desk.alarm("alarm-1")
    desk.alarm(None, signal=None)
    desk.reject(desk.begin())
    desk.resolved("alarm-1")
    failed = desk.version(desk.ask(BuildReason.COMMAND), "ds-2")
    desk.train(failed)
    desk.say("train.failed", like="diverged", run_id=f"run-{failed}", dataset_id=failed)
    desk.version(desk.ask(), "ds-3")
    desk.say("train.failed", like="superseded", run_id="run-ds-3", dataset_id="ds-3", superseded_by="ds-4")
    desk.serve(desk.ask(), "ds-4")
    desk.roll_back("ds-4")
    desk.alarm("alarm-2")
    desk.now = desk.now.replace(day=22)
    for name, verdict in (("ds-5", "failed"), ("ds-6", "undecided")):
        desk.version(desk.ask(), name)
        desk.train(name)
        desk.trained(name, wall_seconds=7200)
        desk.judge(name, verdict)
    desk.version(desk.begin(), "ds-7")
    desk.train("ds-7")
    return desk


def test_a_turn_has_the_end_that_the_log_gives_it(log: Make) -> None:
    turns = eventful(log()).state().turns
    assert [
        (turn.dataset_id, turn.request.data.reason.value, outcome(turn), ended_at(turn) is None)
        for turn in turns
    ] == [
        ("ds-1", "count", "was promoted", False),
        (None, "drift", "was rejected", False),
        ("ds-2", "command", "failed in training", False),
        ("ds-3", "count", "was rolled back", False),  # it went on as the version that superseded it
        ("ds-4", "count", "was rolled back", False),
        ("ds-5", "count", "failed its evaluation", False),
        ("ds-6", "count", "was undecided in its evaluation", False),
        ("ds-7", "drift", "", True),
    ]
    assert turns[-1].alarms == ("alarm-2",)


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
def test_topics_in_any_order_and_events_twice_give_the_same_decisions(log: Make, data: st.DataObject) -> None:
    desk = eventful(log())
    by_topic: defaultdict[str, list[Any]] = defaultdict(list)
    for event in desk.events:
        by_topic[event.data.type].append(event)
    order = data.draw(st.permutations([topic for topic, events in by_topic.items() for _ in events]))
    read = {topic: iter(events) for topic, events in by_topic.items()}
    facts = TurnFacts()
    for topic in order:
        facts.apply(next(read[topic]))
    for event in data.draw(st.lists(st.sampled_from(desk.events), max_size=10)):
        facts.apply(event)
    assert facts.state(desk.spec) == desk.facts().state(desk.spec)
    assert facts.alarmed() == [desk.spec.project]


def test_whoever_decides_names_a_turn_alike(log: Make) -> None:
    """A service that is killed before its request is on the log asks for the same one later."""
    desk = log()
    desk.alarm("alarm-1")
    due = desk.decide()
    assert (due.step, due.request) == (Step.TURN, "alarm-1")
    desk.alarm("alarm-2")
    later = decide(desk.state(), desk.now.replace(day=9))
    assert (later.step, later.request) == (Step.TURN, "alarm-1")


def test_an_alarm_from_before_alarms_had_names_has_one_turn(log: Make) -> None:
    desk = log(cooldown_seconds=0)
    unnamed: dict[str, Any] = {"name": None, "signal": None}
    first = desk.alarm(**unnamed)
    assert (desk.decide().request, desk.decide().alarms) == (first.id, (first.id,))
    request = desk.ask(BuildReason.DRIFT, first.id)  # as it was asked for then
    assert not desk.state().alarms
    desk.alarm(**unnamed)
    desk.reject(request)
    assert desk.decide().step is Step.TURN, "the turn that it waited for made no version"
    version = desk.version(desk.begin(), "ds-1")
    desk.alarm(**unnamed)
    desk.judge(version, "failed")
    assert desk.decide().step is Step.CALM, "it came while the turn was under way"


def test_a_request_that_became_a_dead_letter_holds_nobody_up(log: Make) -> None:
    desk = log()
    desk.ask()
    desk.serve(desk.ask(), "ds-1")
    assert [outcome(turn) for turn in desk.state().turns] == ["was never answered", "was promoted"]


@pytest.mark.parametrize(
    ("happens", "failure"),
    [
        (lambda desk: desk.judge("ds-1", "failed"), "failed its evaluation"),
        (lambda desk: (desk.judge("ds-1", "failed"), desk.judge("ds-1", "passed")), None),
        (lambda desk: desk.move("ds-1", "retired"), "was retired before it served"),
        (lambda desk: (desk.move("ds-1", "production"), desk.move("ds-1", "retired")), None),
        (lambda desk: desk.move("ds-1", "rejected"), "was rejected"),
        (lambda desk: (desk.roll_back("ds-1"), desk.move("ds-1", "production")), None),
        (lambda desk: (desk.move("ds-1", "production"), desk.complete("ds-1", "helped")), None),
        (lambda desk: desk.complete("ds-1", "did not help"), "did not help"),
    ],
)  # fmt: skip
def test_a_version_failed_where_its_model_does_not_serve_for_it(
    log: Make, happens: Any, failure: Any
) -> None:
    desk = log()
    desk.version(desk.ask(), "ds-1")
    desk.train("ds-1")
    desk.trained("ds-1")
    happens(desk)
    told = desk.facts().failure(desk.spec.project, "ds-1")
    assert told is None if failure is None else told.startswith(failure)


@pytest.mark.parametrize("verdict", ["failed", "undecided"])
@pytest.mark.parametrize("stage", ["evaluated", "canary"])
def test_what_passed_goes_on_whatever_a_late_verdict_says_until_a_step_ends_it(
    log: Make, stage: str, verdict: str
) -> None:
    """The registry leaves a candidate where it is that lost to a champion of before, or about which a person
    asked eval once more and eval could not tell."""
    desk = log()
    desk.version(desk.ask(), "ds-1")
    desk.train("ds-1")
    desk.trained("ds-1")
    desk.judge("ds-1", "passed")
    desk.move("ds-1", stage)
    desk.judge("ds-1", verdict)
    desk.alarm()
    assert desk.decide().step is Step.IN_FLIGHT
    desk.move("ds-1", "evaluated", held_up=True)
    desk.complete("ds-1", "undecided by evaluation")
    assert desk.decide().step is Step.TURN
    desk.move("ds-1", "shadow")
    assert desk.decide().step is Step.IN_FLIGHT, "the champion that it beat is back"
    desk.move("ds-1", "retired")
    assert desk.decide().step is Step.TURN


def test_steps_have_the_registry_s_order_whatever_the_clock_of_the_one_that_took_over(log: Make) -> None:
    desk = log()
    desk.version(desk.ask(), "ds-1")
    desk.train("ds-1")
    desk.trained("ds-1")
    desk.move("ds-1", "production", generation=5)
    desk.now -= timedelta(minutes=5)
    desk.move("ds-1", "rejected", generation=6)
    assert desk.facts().failure(desk.spec.project, "ds-1").startswith("was rejected")


def test_nothing_that_users_wrote_is_kept(log: Make) -> None:
    desk = log()
    event = desk.alarm()
    assert event.data.examples
    kept = desk.facts().alarm(desk.spec.project, "alarm-1")
    assert kept.id == event.id
    assert not kept.data.examples


def test_labels_are_wanted_where_their_request_says_or_else_the_alarm(log: Make) -> None:
    desk = log()
    told = {"prompts": 9, "share": 0.1, "centroid": [1.0, 0.0], "radius": 0.3}
    desk.alarm("alarm-1")
    desk.alarm("alarm-2", cluster=told)
    desk.alarm("alarm-3", cluster=told)
    desk.say("labels.requested", like="requested", alarm_id="alarm-3", centroid=[0.0, 1.0], radius=0.4)
    wanted = [desk.facts().wanted(desk.spec.project, f"alarm-{number}") for number in (1, 2, 3)]
    assert [one and (one.centroid, one.radius) for one in wanted] == [
        None, ((1.0, 0.0), 0.3), ((0.0, 1.0), 0.4)
    ]  # fmt: skip


def test_the_newest_revision_of_a_request_for_labels_counts(log: Make) -> None:
    desk = log()
    desk.alarm("alarm-1f")
    for example in ("requested", "grown", "requested"):
        desk.say("labels.requested", like=example)
    wanted = desk.facts().wanted(desk.spec.project, "alarm-1f")
    assert wanted.completion_ids == ("cmpl-1", "cmpl-9", "cmpl-31")
