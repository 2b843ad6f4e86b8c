"""What the answers by topic change in decisions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from tunewheel_turns.deciding import Step, decide
from tunewheel_turns.dispatch import tell
from tunewheel_turns.state import Labels, State

Make = Callable[..., Any]
CLUSTER = {"prompts": 9, "share": 0.1, "centroid": (1.0, 0.0), "radius": 0.1}
COLLECT = {"suggested_action": "collect_labels", "cluster": CLUSTER}


def answered(
    log: Make, trusted: int, lacking: Mapping[str, int] | None = None, in_scope: float = 1.0
) -> State:
    """Return the state of an alarm that asks for ten labels."""
    desk = log(min_labels=10)
    desk.alarm(**COLLECT)
    labels = Labels(trusted, lacking or {}, in_scope)
    return replace(desk.state(), labelled={"alarm-1": trusted}, answers={"alarm-1": labels})


def step_of(state: State) -> Step:
    return decide(state, state.alarms[0].at).step


@pytest.mark.parametrize(
    ("trusted", "lacking", "step"),
    [
        (10, {"a": 0, "b": 0}, Step.TURN),
        (9, {"a": 0, "b": 0}, Step.LABELS),
        (10, {"a": 0, "b": 3}, Step.LABELS),
        (19, {"a": 0, "b": 1}, Step.LABELS),
        (20, {"a": 0, "b": 5}, Step.TURN),
    ],
)
def test_a_turn_is_due_once_each_topic_has_enough_or_twice_the_labels_are_there(
    log: Make, trusted: int, lacking: Mapping[str, int], step: Step
) -> None:
    assert step_of(answered(log, trusted, lacking)) is step


def test_prompts_out_of_scope_lower_what_is_wanted(log: Make) -> None:
    assert step_of(answered(log, 5, in_scope=0.5)) is Step.TURN
    assert step_of(answered(log, 5, in_scope=0.51)) is Step.LABELS


def test_nothing_follows_an_alarm_whose_prompts_are_all_out_of_scope(log: Make) -> None:
    state = answered(log, 0, in_scope=0.0)
    decision = decide(state, state.alarms[0].at)
    assert decision.step is Step.NOTHING
    assert "out of scope" in decision.evidence


def test_a_decision_says_what_each_topic_lacks(log: Make) -> None:
    state = answered(log, 4, {"a": 0, "b": 3})
    event = tell(state, decide(state, state.alarms[0].at), "desk", state.alarms[0].at)
    assert event.alarms[0].lacking == {"a": 0, "b": 3}
    assert (event.alarms[0].labels, event.alarms[0].labels_needed) == (4, 10)
