"""Runs over the control API."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.events.training import TrainAction
from tunewheel_testing.adapters import BASE
from tunewheel_testing.datasets import put_dataset

ROW = {
    "example_id": "ex-1", "label": "bell", "group": "g", "trust": "expert", "record_ids": ["rec-1"],
    "messages": [{"role": "user", "content": "Does it ring?"}, {"role": "assistant", "content": "bell"}],
}  # fmt: skip


async def test_a_run_tells_its_whole_story(state: Any, desk: Any, ask: Any):
    for event in desk.turn():
        state.apply(event)
    run = (await ask("/projects/desk/runs/run-1")).json()
    assert (run["state"], run["stage"], run["verdict"]) == ("completed", "production", "passed")
    assert (run["dataset_id"], run["model_id"], run["base"]) == ("ds-1", "desk-1", BASE.name)
    measured = {"learning_rate": 1e-3, "tokens_per_second": 200.0, "memory_bytes": 2 * 2**30}
    assert run["losses"] == [{"step": 1, "loss": 2.0} | measured, {"step": 2, "loss": 1.0} | measured]
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


async def test_runs_are_compared_by_what_differs(state: Any, desk: Any, store: Any, ask: Any):
    for event in desk.turn():
        state.apply(event)
    for number, rate in ((2, 1e-3), (3, 2e-3)):
        desk.run_id, desk.dataset_id = f"run-{number}", f"ds-{number}"
        spec = desk.spec()
        changed = spec.model_copy(update={"train": spec.train.model_copy(update={"learning_rate": rate})})
        _, ref = await put_dataset(store, changed, dataset_id=desk.dataset_id, train=[ROW], holdout=[ROW])
        made = desk.versioned().data.model_dump() | {"manifest": ref}
        for event in (desk.say("dataset.versioned", **made), desk.started(), desk.progressed(1, 1.5)):
            state.apply(event)
    path = "/projects/desk/runs/comparison"
    found = (await ask(path, compare="run-2,run-3")).json()
    assert [run["run_id"] for run in found["runs"]] == ["run-2", "run-3"]
    assert found["recipe"] == {"learning_rate": [1e-3, 2e-3]}
    assert found["figures"] == {}
    found = (await ask(path, compare="run-1,run-2")).json()
    assert found["figures"]["rouge_l"] == [0.4, None], "the last run has no verdict"
    assert found["recipe"]["learning_rate"] == [None, 1e-3], "the first run's manifest is not in the store"
    for names in ("run-1", "run-1,run-1", ",".join(f"run-{n % 3 + 1}" for n in range(3)) + ",run-9"):
        answer = await ask(path, compare=names)
        assert answer.status_code == (404 if "run-9" in names else 422)


async def test_a_comparison_withholds_figures_while_answers_are_reviewed(
    state: Any, desk: Any, store: Any, ask: Any
):
    for event in desk.turn():
        state.apply(event)
    desk.run_id = "run-2"
    for event in (desk.started(), await desk.stored_review(store, items=2, reviewers=1)):
        state.apply(event)
    found = (await ask("/projects/desk/runs/comparison", compare="run-1,run-2")).json()
    assert (found["withheld"], found["figures"]) == (True, {})
