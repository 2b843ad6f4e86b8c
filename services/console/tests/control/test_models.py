"""Models and the verdicts of their rollouts over the control API."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_testing.adapters import BASE


@pytest.fixture
def registered(state: Any, desk: Any) -> None:
    for n in (1, 2):
        names = {"model_id": desk.model_id(n), "run_id": f"run-{n}", "dataset_id": f"ds-{n}"}
        state.apply(desk.say("model.registered", kind="adapter", base=BASE, adapter=desk.adapter(n), **names))
    for event in (desk.passed(), desk.promoted(), desk.desired(), desk.pinned("desk-1")):
        state.apply(event)


async def test_a_model_tells_its_stage_its_steps_and_its_figures(registered: None, ask: Any):
    for asked in ("desk-1", "champion"):
        model = (await ask(f"/projects/desk/models/{asked}")).json()
        assert (model["model_id"], model["stage"], model["role"]) == ("desk-1", "production", "production")
    assert (model["percent"], model["pinned"], model["evaluation_id"]) == (100, True, "run-1")
    assert [step["stage"] for step in model["history"]] == ["production"]
    assert {one["role"] for one in model["contestants"]} == {"base", "candidate"}
    assert model["registered_at"] < model["since"]


async def test_models_are_filtered_by_their_stage(registered: None, ask: Any):
    page = (await ask("/projects/desk/models")).json()
    assert [one["model_id"] for one in page["items"]] == ["desk-2", "desk-1"]
    page = (await ask("/projects/desk/models", state="registered")).json()
    assert [one["model_id"] for one in page["items"]] == ["desk-2"]
    assert not (await ask("/projects/desk/models", kind="base")).json()["items"]


async def test_a_models_figures_are_withheld_while_a_review_is_open(
    registered: None, state: Any, desk: Any, store: Any, ask: Any
):
    desk.run_id = "run-2"
    state.apply(await desk.stored_review(store, items=2, reviewers=1))
    model = (await ask("/projects/desk/models/desk-1")).json()
    assert (model["withheld"], model["contestants"], model["checks"]) == (True, [], [])


async def test_nobody_is_champion_where_the_base_serves(state: Any, desk: Any, ask: Any):
    state.apply(desk.declared())
    answer = await ask("/projects/desk/models/champion")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "model_id")


async def test_verdicts_of_rollouts_are_told_with_their_bounds(
    registered: None, state: Any, desk: Any, ask: Any
):
    for stage, verdict in (("shadow", "passed"), ("canary", "failed")):
        state.apply(desk.judged(1, stage, verdict))
    page = (await ask("/projects/desk/rollouts")).json()
    assert [(one["stage"], one["verdict"]) for one in page["items"]] == [
        ("canary", "failed"),
        ("shadow", "passed"),
    ]
    assert page["items"][1]["bounds"][0]["figure"] == "answers"
    page = (await ask("/projects/desk/rollouts", verdict="passed", model_id="champion")).json()
    assert [one["stage"] for one in page["items"]] == ["shadow"]
