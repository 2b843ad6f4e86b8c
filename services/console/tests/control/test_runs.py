"""Runs over the control API."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.events.training import TrainAction
from tunewheel_testing.adapters import BASE


async def test_a_run_tells_its_whole_story(state: Any, desk: Any, ask: Any):
    for event in desk.turn():
        state.apply(event)
    run = (await ask("/projects/desk/runs/run-1")).json()
    assert (run["state"], run["stage"], run["verdict"]) == ("completed", "production", "passed")
    assert (run["dataset_id"], run["model_id"], run["base"]) == ("ds-1", "desk-1", BASE.name)
    assert run["losses"] == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.0}]
    assert (run["seconds"], run["progress"]["tokens_per_second"]) == (1.0, 200.0)
    assert run["created_at"] == run["started_at"] < run["ended_at"] < run["news_at"]
    assert run["evaluations"] == ["run-1"]


async def test_a_failed_run_says_why_and_a_cancelled_one_who_cancelled_it(state: Any, desk: Any, ask: Any):
    state.apply(desk.started())
    state.apply(desk.failed_training("ran out of memory"))
    run = (await ask("/projects/desk/runs/run-1")).json()
    assert (run["state"], run["failure"]["field"]) == ("failed", "(run)")
    assert "ran out of memory" in run["why"]
    desk.run_id = "run-2"
    cancel = desk.of_run("train.control", action="cancel", request="c", principal={"name": "ann"})
    for event in (desk.started(), cancel, desk.failed_training("was cancelled")):
        state.apply(event)
    run = (await ask("/projects/desk/runs/run-2")).json()
    assert (run["state"], run["controls"][0]["by"]) == ("cancelled", "ann")


@pytest.mark.parametrize("wanted", ["training", "paused", "superseded"])
async def test_runs_are_filtered_by_their_state(state: Any, desk: Any, ask: Any, wanted: str):
    desk.run_id = "training"
    state.apply(desk.started())
    desk.run_id = "paused"
    state.apply(desk.started())
    state.apply(desk.controlled(TrainAction.PAUSE))
    desk.run_id = "superseded"
    state.apply(desk.failed_training("was not begun", superseded_by="ds-2"))
    page = (await ask("/projects/desk/runs", state=wanted)).json()
    assert [run["run_id"] for run in page["items"]] == [wanted]


async def test_an_unknown_run_is_named_with_the_fix(state: Any, desk: Any, ask: Any):
    state.apply(desk.started())
    answer = await ask("/projects/desk/runs/run-77")
    assert answer.status_code == 404
    error = answer.json()["error"]
    assert (error["param"], error["code"], error["type"]) == ("run_id", "not_found", "invalid_request_error")
    assert "/v1/projects/desk/runs" in error["message"]
