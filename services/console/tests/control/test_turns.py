"""Turns and alarms over the control API."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture
def turned(state: Any, desk: Any) -> Any:
    """A turn that an alarm began, and whose model serves."""
    drift = desk.drifted().data.model_dump() | {"alarm_id": "alarm-1", "effect": 0.2, "effect_unit": "share"}
    state.apply(desk.say("drift.detected", **drift))
    upto = {"records_upto": {"0": 1}, "alarm_ids": ("alarm-1",), "principal": {"name": "ann"}}
    asked = desk.say("dataset.requested", reason="drift", request="r2", **upto)
    state.apply(asked)
    versioned = desk.event(desk.versioned().data, asked)
    for event in (versioned, desk.started(), desk.trained(), desk.passed(), desk.promoted(), desk.desired()):
        state.apply(event)
    return state


async def test_a_turn_tells_its_stage_its_cause_and_who_asked(turned: Any, ask: Any):
    (turn,) = (await ask("/projects/desk/turns", state="in flight")).json()["items"]
    assert (turn["reason"], turn["stage"], turn["alarm_ids"]) == ("drift", "production", ["alarm-1"])
    assert (turn["dataset_id"], turn["run_id"], turn["model_id"]) == ("ds-1", "run-1", "desk-1")
    found = (await ask("/projects/desk/turns/latest")).json()
    assert (found["turn_id"], found["asked_by"], found["request"]) == (turn["turn_id"], "ann", "r2")
    assert not (await ask("/projects/desk/turns", state="ended")).json()["items"]


async def test_an_alarm_tells_its_figures_and_turns_until_it_is_resolved(turned: Any, desk: Any, ask: Any):
    alarm = (await ask("/projects/desk/alarms/alarm-1")).json()
    assert (alarm["state"], alarm["effect"], alarm["window"]["completions"]) == ("open", 0.2, 9)
    assert len(alarm["turns"]) == 1
    turned.apply(desk.resolved())
    alarm = (await ask("/projects/desk/alarms/alarm-1")).json()
    assert (alarm["state"], alarm["resolved"]["reason"]) == ("resolved", "covered")
    assert not (await ask("/projects/desk/alarms", state="open")).json()["items"]


@pytest.mark.parametrize(("noun", "field"), [("turns", "turn_id"), ("alarms", "alarm_id")])
async def test_what_is_not_there_is_named(turned: Any, ask: Any, noun: str, field: str):
    answer = await ask(f"/projects/desk/{noun}/none-such")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, field)
