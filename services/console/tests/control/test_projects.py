"""Projects over the control API: what ``status`` says."""

from __future__ import annotations

from typing import Any

from tunewheel_console.control.projects import summary_of
from tunewheel_console.state import Rest
from tunewheel_contracts.api.projects import ProjectDetail
from tunewheel_contracts.topics import PROJECT_DECLARED


async def test_a_project_tells_its_place_and_what_to_do(state: Any, desk: Any, ask: Any):
    alarm = {"alarm_id": "alarm-1", "detector": "format", "suggested_action": "retrain"}
    for event in (*desk.turn(), desk.decided()):
        state.apply(event)
    state.apply(desk.say("drift.detected", **(desk.drifted().data.model_dump() | alarm)))
    found = (await ask("/projects/desk")).json()
    assert (found["place"], found["champion"]) == ("serving", "desk-1")
    counted = {"datasets": 1, "runs": 1, "promoted": 1, "alarms": 2, "open_alarms": 2}
    assert found["counts"] == counted | {"labels_waiting": 0, "reviews_waiting": 0}
    assert found["next_steps"] == ["Run `tunewheel dataset build`."]
    assert {"alarm", "decision", "to do"} <= {line["about"] for line in found["report"]}
    assert found["spec"]["criteria"]
    assert found["routes"][0]["percent"] == 100
    assert ProjectDetail.model_validate(found).project == "desk"


async def test_a_removed_project_is_no_longer_declared(state: Any, desk: Any, ask: Any):
    state.apply(desk.declared())
    assert (await ask("/projects/desk")).json()["declared"]
    state.forget(PROJECT_DECLARED, "desk")
    found = (await ask("/projects/desk")).json()
    assert (found["declared"], found["spec"], found["declared_at"]) == (False, None, None)


async def test_the_list_has_the_projects_that_the_caller_may_read(
    state: Any, desk: Any, make_desk: Any, ask: Any
):
    for name in ("desk", "shop", "yard"):
        state.apply(make_desk(name).declared())
    page = (await ask("/projects", {"shop", "yard"})).json()
    assert ({one["project"] for one in page["items"]}, page["total"]) == ({"shop", "yard"}, 2)


async def test_nobody_learns_that_a_project_of_others_exists(state: Any, desk: Any, ask: Any):
    state.apply(desk.declared())
    paths = ("desk", "nope", "desk/runs", "nope/runs")
    answers = [await ask(f"/projects/{path}", {"shop"}) for path in paths]
    assert {answer.status_code for answer in answers} == {403}
    told = {answer.text.replace("desk", "nope") for answer in answers}
    assert len(told) == 1


async def test_an_unknown_project_is_named_to_those_who_may_read_all(ask: Any):
    answer = await ask("/projects/nope")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "project")


async def test_projects_at_rest_are_listed_and_taken_into_memory_by_a_request(
    state: Any, desk: Any, api: Any, ask: Any
):
    for event in desk.turn():
        state.apply(event)
    listed, runs = [(await ask(path)).json() for path in ("projects", "projects/desk/runs")]
    project = state.projects.pop("desk")
    state.projects.resting["desk"] = Rest(summary=summary_of(project))

    async def open_project(name: str) -> None:
        del state.projects.resting[name]
        state.projects[name] = project

    state.projects.open = open_project
    assert (await ask("projects")).json() == listed
    assert (await ask("projects", {"other"})).json()["items"] == []
    assert (await ask("projects/desk/runs", {"other"})).status_code == 403
    assert "desk" in state.projects.resting, "who may not read it makes no work"
    assert (await ask("projects/desk/runs")).json() == runs
