"""Operators build, steer runs, evaluate and move models: what is put on the log, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.training import TrainAction
from tunewheel_runtime.identity.roles import Role

RUNS, MODELS = "projects/desk/runs", "projects/desk/models"


def param_of(answer: Any) -> tuple[int, str | None]:
    return answer.status_code, answer.json()["error"]["param"]


async def test_a_command_to_a_run_goes_out_in_the_callers_name(state: Any, desk: Any, door: Any):
    state.apply(desk.started())
    for action in TrainAction:
        answer = await door.send("POST", f"{RUNS}/run-1/{action.value}")
        assert answer.status_code == 202
        event = door.log.events[-1]
        assert answer.json() == {
            "project": "desk", "run_id": "run-1", "action": action.value, "command_id": event.id
        }  # fmt: skip
        assert (event.data.action, event.data.principal.name) == (action, "ann")


@pytest.mark.parametrize(
    ("digits", "status"), [("0a" * 10, 202), ("0a" * 9, 404), ("0a" * 11, 404), ("0A" * 10, 404)]
)
async def test_a_run_that_waits_for_a_machine_is_paused_by_its_whole_id(
    digits: str, status: int, state: Any, desk: Any, door: Any
):
    state.apply(desk.started())
    run_id = f"run-{digits}"
    assert (await door.send("POST", f"{RUNS}/{run_id}/pause")).status_code == status
    assert [event.data.run_id for event in door.log.events] == [run_id] * (status == 202)


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_named_command_is_one_command_however_often_it_is_sent(
    state: Any, desk: Any, door: Any, by_header: bool
):
    state.apply(desk.started())
    how: dict[str, Any] = {"headers": {"Idempotency-Key": "k"}} if by_header else {"json": {"request": "k"}}
    first, again = [await door.send("POST", f"{RUNS}/latest/pause", **how) for _ in range(2)]
    assert first.json()["command_id"] == again.json()["command_id"]
    other = await door.send("POST", f"{RUNS}/run-1/pause")
    assert other.json()["command_id"] != first.json()["command_id"]
    both = await door.send("POST", f"{RUNS}/run-1/pause", {"request": "a"}, headers={"Idempotency-Key": "b"})
    assert param_of(both) == (422, "request")


@pytest.mark.parametrize(
    ("path", "body", "status", "param"),
    [
        (f"{RUNS}/run-2/pause", None, 404, "run_id"),
        ("projects/shop/runs/run-1/pause", None, 404, "project"),
        (f"{RUNS}/run-1/stop", None, 422, "action"),
        (f"{RUNS}/run-1/pause", {"reqest": "k"}, 422, "reqest"),
        (f"{RUNS}/run-1/evaluations", None, 409, "run_id"),
        ("projects/shop/datasets", None, 404, "project"),
        ("projects/desk/datasets", {"patience_seconds": 3_600}, 422, "patience_seconds"),
        (f"{MODELS}/none/promote", {"reason": "r"}, 404, "model_id"),
        (f"{MODELS}/challenger/promote", {"reason": "r"}, 404, "model_id"),
        (f"{MODELS}/base/promote", {"reason": "r"}, 404, "model_id"),
        ("projects/shop/models/base/stop", {"reason": "r"}, 404, "project"),
        (f"{MODELS}/champion/explode", {"reason": "r"}, 422, "action"),
        (f"{MODELS}/champion/promote", {"reason": ""}, 422, "reason"),
        (f"{MODELS}/champion/rollback", {"reason": "r", "generation": 1}, 409, "generation"),
    ],
)
async def test_a_command_that_cannot_be_is_refused_at_the_door(
    state: Any, desk: Any, door: Any, path: str, body: Any, status: int, param: str
):
    for event in (desk.started(), desk.promoted(), desk.desired()):
        state.apply(event)
    assert param_of(await door.send("POST", path, body)) == (status, param)
    assert not door.log.events


@pytest.mark.parametrize("newer", [None, "ds-2"])
async def test_a_run_that_is_completed_takes_no_command_and_a_failed_one_is_resumed(
    state: Any, desk: Any, door: Any, newer: str | None
):
    if newer is None:
        state.apply(desk.started())
    state.apply(desk.failed_training("the disk is full", superseded_by=newer))
    assert param_of(await door.send("POST", f"{RUNS}/run-1/pause")) == (409, "action")
    assert (await door.send("POST", f"{RUNS}/run-1/resume")).status_code == 202
    state.apply(desk.trained())
    assert param_of(await door.send("POST", f"{RUNS}/run-1/resume")) == (409, "action")


async def test_without_a_broker_nothing_is_kept(state: Any, desk: Any, door: Any):
    for event in (desk.declared(), desk.started(), desk.promoted(), desk.passed()):
        state.apply(event)
    door.log.away = True
    orders = {
        f"{RUNS}/run-1/pause": None,
        f"{RUNS}/run-1/evaluations": None,
        "projects/desk/datasets": None,
        f"{MODELS}/{desk.model_id()}/rollback": {"reason": "r"},
    }
    for path, body in orders.items():
        answer = await door.send("POST", path, body)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "away"), path
    assert [one.action for one in state.projects["desk"].commands.by_id.values()] == ["declare"]


async def test_a_version_is_asked_for_once_ingest_has_read_what_was_published(
    state: Any, desk: Any, door: Any
):
    state.apply(desk.declared())
    door.behind = 3
    refused = await door.send("POST", "projects/desk/datasets", {"patience_seconds": 0})
    assert param_of(refused) == (409, "wait")
    assert "3 events behind" in refused.json()["error"]["message"]
    assert (await door.send("POST", "projects/desk/datasets", {"wait": False})).status_code == 202
    door.behind = 0
    assert (await door.send("POST", "projects/desk/datasets")).status_code == 202
    assert [event.data.type for event in door.log.events] == ["dataset.requested"] * 2


async def test_a_project_that_was_removed_gets_no_version(state: Any, desk: Any, door: Any):
    state.apply(desk.declared())
    state.projects["desk"].spec = None
    assert param_of(await door.send("POST", "projects/desk/datasets")) == (409, "project")


async def test_a_run_is_evaluated_by_the_rows_of_a_version_that_its_beginning_names(
    state: Any, desk: Any, door: Any
):
    for event in (desk.versioned(), desk.started(), desk.trained(), desk.passed()):
        state.apply(event)
    order = {
        "dataset_id": "latest",
        "reason": "more rows",
        "criteria": [{"metric": "rouge_l", "minimum": 0.2}],
    }
    answer = await door.send("POST", f"{RUNS}/latest/evaluations", order)
    (event,) = door.log.events
    assert answer.json() == {"project": "desk", "run_id": "run-1", "command_id": event.id}
    assert (event.data.dataset_id, event.data.reason, len(event.data.criteria)) == ("ds-1", "more rows", 1)
    unknown = await door.send("POST", f"{RUNS}/latest/evaluations", {"dataset_id": "ds-404"})
    assert param_of(unknown) == (404, "dataset_id")


@pytest.mark.parametrize("name", ["champion", None])
async def test_a_command_on_a_model_goes_out_with_what_the_console_knows(
    state: Any, desk: Any, door: Any, name: str | None
):
    state.apply(desk.promoted())
    state.apply(desk.desired(generation=7))
    answer = await door.send("POST", f"{MODELS}/{name or desk.model_id()}/rollback", {"reason": "refunds"})
    (event,) = door.log.events
    assert (answer.status_code, answer.json()["command_id"]) == (202, event.id)
    assert (event.data.model_id, event.data.action) == (desk.model_id(), "rollback")
    assert (event.data.generation, event.data.reason, event.data.force) == (7, "refunds", False)


@pytest.mark.parametrize("name", ["champion", "base"])
async def test_a_stop_leaves_it_to_the_registry_who_that_is(state: Any, desk: Any, door: Any, name: str):
    state.apply(desk.promoted())
    state.apply(desk.desired(generation=7))
    answer = await door.send("POST", f"{MODELS}/{name}/stop", {"reason": "nonsense"})
    assert (answer.status_code, answer.json()["model_id"]) == (202, name)
    (event,) = door.log.events
    assert (event.data.model_id, event.data.action, event.data.generation) == (name, "stop", None)


@pytest.mark.parametrize(
    ("stage", "action", "allowed"),
    [
        (Stage.PRODUCTION, "promote", False),
        (Stage.SHADOW, "promote", True),
        (Stage.PRODUCTION, "rollback", True),
        (Stage.EVALUATED, "rollback", False),
        (Stage.EVALUATED, "retire", True),
        (Stage.RETIRED, "retire", False),
        (Stage.EVALUATED, "pin", False),
        (Stage.PRODUCTION, "pin", True),
        (Stage.PRODUCTION, "unpin", False),
        (Stage.EVALUATED, "reject", True),
        (Stage.EVALUATED, "stop", False),
    ],
)
async def test_a_command_that_the_stage_forbids_is_refused_unless_another_waits(
    state: Any, desk: Any, door: Any, stage: Stage, action: str, allowed: bool
):
    state.apply(desk.promoted(stage))
    path = f"{MODELS}/{desk.model_id()}/{action}"
    answer = await door.send("POST", path, {"reason": "r"})
    assert answer.status_code == (202 if allowed else 409)
    if not allowed:
        assert answer.json()["error"]["param"] == "model_id"
        state.apply(desk.say("model.commanded", model_id="desk-2", action="reject", reason="r", request="r"))
        assert (await door.send("POST", path, {"reason": "r"})).status_code == 202


async def test_only_force_promotes_what_was_not_judged(state: Any, desk: Any, door: Any):
    state.apply(desk.promoted(Stage.REGISTERED))
    path = f"{MODELS}/{desk.model_id()}/promote"
    assert param_of(await door.send("POST", path, {"reason": "r"})) == (409, "model_id")
    assert (await door.send("POST", path, {"reason": "r", "force": True})).status_code == 202


async def test_a_viewer_commands_nothing(state: Any, desk: Any, door: Any):
    state.apply(desk.started())
    door.roles = frozenset({Role.VIEWER, Role.REVIEWER, Role.PUBLISHER})
    assert (await door.send("POST", f"{RUNS}/run-1/cancel")).status_code == 403
    assert not door.log.events
