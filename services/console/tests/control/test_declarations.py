"""A spec is checked as a whole, put in force, and taken back."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from tunewheel_console.control.declarations import find_power
from tunewheel_console.settings import Settings, allowed_sources
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.topics import PROJECT_DECLARED

DESK = "projects/desk"
YAML = {"content-type": "application/yaml"}


def body(spec: Any, **changes: Any) -> dict[str, Any]:
    return json.loads(spec.model_dump_json()) | changes


@pytest.mark.parametrize("kind", ["yaml", "json"])
async def test_a_spec_is_put_in_force_in_the_callers_name(state: Any, desk: Any, door: Any, kind: str):
    told = body(desk.spec())
    text = yaml.safe_dump(told) if kind == "yaml" else json.dumps(told)
    answer = await door.send("PUT", DESK, params={"power": False}, content=text, headers=YAML)
    (event,) = door.log.events
    found = answer.json()
    assert (answer.status_code, found["command_id"]) == (202, event.id)
    assert (found["spec_sha256"], found["criteria"]) == (desk.spec().sha256, len(desk.spec().criteria))
    assert (event.data.spec, event.data.principal.name) == (desk.spec(), "ann")
    assert state.projects["desk"].spec == desk.spec(), "at once, before the log was read"
    assert (found["power"], found["power_left_out"]) == (None, "it was not asked for")


async def test_a_check_puts_nothing_in_force(state: Any, desk: Any, door: Any):
    query = {"check": True, "power": False}
    answer = await door.send("PUT", DESK, body(desk.spec()), params=query)
    assert (answer.status_code, answer.json()["command_id"]) == (200, "")
    assert (door.log.events, state.projects) == ([], {})
    assert answer.json()["changes"]["project"] == [None, "desk"], "all of a new project is new"


async def test_a_spec_that_was_checked_against_another_is_refused(state: Any, desk: Any, door: Any):
    """Two people look at what their specs change; only the first one's is put in force."""

    async def sent(spec: Any, **query: Any) -> Any:
        return await door.send("PUT", DESK, body(spec), params={"power": False, **query})

    first, second = desk.spec(), desk.declared(system_prompt="Answer briefly.").data.spec
    seen = [(await sent(one, check=True)).json()["replaces"] for one in (first, second)]
    assert seen == ["none", "none"]
    assert (await sent(first, replaces="none")).json()["replaces"] == "none"
    for check in (False, True):
        answer = await sent(second, replaces="none", check=check)
        assert (answer.status_code, answer.json()["error"]["param"]) == (409, "replaces")
    assert state.projects["desk"].spec == first
    now = (await sent(second, check=True)).json()["replaces"]
    assert (now, (await sent(second, replaces=now)).status_code) == (first.sha256, 202)
    assert state.projects["desk"].spec == second


async def test_all_faults_of_a_spec_are_told_at_once(desk: Any, door: Any):
    wrong = body(desk.spec(), base_modle="m", dataset={"holdout_fraction": 2})
    told = (await door.send("PUT", DESK, wrong)).json()["error"]
    assert [fault["param"] for fault in told["faults"]] == ["dataset.holdout_fraction", "base_modle"]
    assert (told["code"], door.log.events) == ("invalid", [])


@pytest.mark.parametrize(
    ("content", "status", "param"),
    [
        (b"project: [", 422, "(file)"),
        (b"\xff", 422, "(body)"),
        (b"x" * (1 << 20) + b"y", 413, "(body)"),
        (b"", 422, "(file)"),
    ],
)
async def test_what_is_no_spec_is_refused(door: Any, content: bytes, status: int, param: str):
    answer = await door.send("PUT", DESK, content=content, headers=YAML)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)


async def test_a_spec_of_another_project_is_refused(desk: Any, door: Any):
    answer = await door.send("PUT", "projects/shop", body(desk.spec()))
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, "project")
    assert (await door.send("PUT", "projects/A%20B", body(desk.spec()))).status_code == 422


async def test_a_changed_prompt_is_said_to_wait_for_a_version(state: Any, desk: Any, door: Any):
    state.apply(desk.declared())
    changed = desk.declared(system_prompt="Answer briefly.").data.spec
    told = (await door.send("PUT", DESK, body(changed), params={"power": False})).json()
    assert told["notes"][0].startswith("task.system_prompt changed")
    before = desk.spec().task.system_prompt
    assert told["changes"] == {"task.system_prompt": [before, "Answer briefly."]}
    again = (await door.send("PUT", DESK, body(changed), params={"power": False})).json()
    assert (again["notes"], again["changes"]) == ([], {})


def test_hosts_and_folders_are_checked_where_they_are_told():
    assert allowed_sources(Settings()) is None
    told = allowed_sources(
        Settings(spec_hosts="hub.example", spec_folders="/data", store_url="file:///store")
    )
    assert told == AllowedSources(hosts="hub.example", folders=("/data", "/store/general"))


async def test_power_is_simulated_in_another_process_and_left_out_where_it_takes_too_long(
    desk: Any, monkeypatch: pytest.MonkeyPatch
):
    declarations = "tunewheel_console.control.declarations"
    monkeypatch.setattr(f"{declarations}._kept", {})  # another test may have asked the same
    spec = desk.spec()
    found = await find_power(spec, [1, 1])
    assert found is not None
    assert (found.rows, found.customers) == (2, 2)
    monkeypatch.setattr(f"{declarations}.SIMULATION_SECONDS", 0.001)
    assert await find_power(spec, [1]) is None
    assert await find_power(spec, [1, 1]) == found, "a simulation is kept"


async def test_a_declaration_survives_the_death_of_its_simulation(
    state: Any, desk: Any, door: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tunewheel_console.control.declarations._kept", {})
    monkeypatch.setattr("sys.executable", "false")  # a process that ends at once, with status 1
    answer = await door.send("PUT", DESK, body(desk.spec()))
    assert (answer.status_code, answer.json()["power"]) == (202, None)
    assert "ended" in answer.json()["power_left_out"]


async def test_a_project_is_taken_back_and_comes_back(state: Any, desk: Any, door: Any):
    state.apply(desk.declared())
    answer = await door.send("DELETE", DESK)
    assert (answer.status_code, answer.json()["project"]) == (202, "desk")
    assert door.log.taken_back == [("project.declared", "desk"), ("serving.desired", "desk")]
    state.forget(PROJECT_DECLARED, "desk")
    assert (await door.send("DELETE", DESK)).status_code == 202, "its first answer may have been lost"
    unknown = await door.send("DELETE", f"{DESK}-2")
    assert (unknown.status_code, unknown.json()["error"]["param"]) == (404, "project")
    assert (await door.send("PUT", DESK, body(desk.spec()), params={"power": False})).status_code == 202
    assert state.projects["desk"].spec == desk.spec()


async def test_without_a_broker_nothing_is_declared_and_nothing_is_removed(state: Any, desk: Any, door: Any):
    state.apply(desk.declared())
    door.log.away = True
    assert (await door.send("PUT", DESK, body(desk.spec()), params={"power": False})).status_code == 503
    assert (await door.send("DELETE", DESK)).status_code == 503
