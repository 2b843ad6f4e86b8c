"""Commands to runs over HTTP: what is put on the log, and what is refused."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_console.api import add_model_commands, add_routes, add_scorecard_page
from tunewheel_console.control.errors import answer_errors
from tunewheel_console.rows import run_rows
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.training import TrainAction
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore


class Recorder:
    """Takes commands in the place of a broker, which may be away."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, TrainAction]] = []
        self.orders: list[dict[str, Any]] = []
        self.away = False

    async def control(
        self, project: str, run_id: str, action: TrainAction, *, principal: Principal | None
    ) -> None:
        if self.away:
            raise TransientError("the broker is away")
        self.sent.append((project, run_id, action))

    async def command(self, project: str, model_id: str, action: str, **told: Any) -> str:
        if self.away:
            raise TransientError("the broker is away")
        self.orders.append({"project": project, "model_id": model_id, "action": action, **told})
        return "command-1"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore("memory:///")


@pytest.fixture
async def client(state: Any, recorder: Any, store: ObjectStore):
    web = FastAPI(openapi_url=None)
    add_routes(web, state, recorder)
    add_model_commands(web, state, recorder)
    add_scorecard_page(web, state, store)
    answer_errors(web)
    guard(web.routes, Access(HttpSettings(identity="open"), warn=lambda *_: None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://console") as client:
        yield client


async def test_a_command_to_a_run_goes_out(state: Any, desk: Any, client: Any, recorder: Recorder):
    state.apply(desk.started())
    for action in TrainAction:
        answer = await client.post(f"/v1/projects/desk/runs/run-1/{action.value}")
        assert answer.status_code == 202
        assert answer.json() == {"project": "desk", "run_id": "run-1", "action": action.value}
    assert recorder.sent == [("desk", "run-1", action) for action in TrainAction]


@pytest.mark.parametrize(
    ("path", "status", "word"),
    [
        ("desk/runs/run-2/pause", 404, "run_id"),
        ("shop/runs/run-1/pause", 404, "shop has no run run-1"),
        ("desk/runs/run-1/stop", 422, "action"),
    ],
)
async def test_what_is_not_there_is_named(
    state: Any, desk: Any, client: Any, recorder: Recorder, path: str, status: int, word: str
):
    state.apply(desk.started())
    answer = await client.post(f"/v1/projects/{path}")
    assert answer.status_code == status
    assert word in answer.text
    assert not recorder.sent


async def test_a_run_that_has_ended_takes_no_command(state: Any, desk: Any, client: Any, recorder: Recorder):
    state.apply(desk.started())
    state.apply(desk.trained())
    answer = await client.post("/v1/projects/desk/runs/run-1/cancel")
    assert answer.status_code == 409
    assert "completed" in answer.text
    assert not recorder.sent


async def test_without_a_broker_it_says_so(state: Any, desk: Any, client: Any, recorder: Recorder):
    state.apply(desk.started())
    recorder.away = True
    answer = await client.post("/v1/projects/desk/runs/run-1/pause")
    assert (answer.status_code, answer.json()["error"]["message"]) == (503, "the broker is away")


def test_a_paused_run_is_told_as_such(state: Any, desk: Any):
    state.apply(desk.started())
    state.apply(desk.controlled(TrainAction.PAUSE))
    project = state.projects["desk"]
    assert run_rows(project)[0]["progress"].startswith("paused, step 0")
    assert project.place.note == "is paused"
    state.apply(desk.controlled(TrainAction.RESUME))
    assert run_rows(project)[0]["progress"].startswith("step 0")


@pytest.mark.parametrize("name", ["champion", None])
async def test_a_command_on_a_model_goes_out_with_what_the_console_knows(
    state: Any, desk: Any, client: Any, recorder: Recorder, name: str | None
):
    state.apply(desk.promoted())
    state.apply(desk.desired(generation=7))
    path = f"/v1/projects/desk/models/{name or desk.model_id()}/rollback"
    answer = await client.post(path, json={"reason": "promises refunds"})
    assert (answer.status_code, answer.json()["command_id"]) == (202, "command-1")
    (order,) = recorder.orders
    assert (order["model_id"], order["action"], order["generation"]) == (desk.model_id(), "rollback", 7)
    assert (order["reason"], order["force"]) == ("promises refunds", False)


@pytest.mark.parametrize("name", ["champion", "base"])
async def test_a_stop_leaves_it_to_the_registry_who_that_is(
    state: Any, desk: Any, client: Any, recorder: Recorder, name: str
):
    state.apply(desk.promoted())
    state.apply(desk.desired(generation=7))
    answer = await client.post(f"/v1/projects/desk/models/{name}/stop", json={"reason": "nonsense"})
    assert (answer.status_code, answer.json()["model_id"]) == (202, name)
    (order,) = recorder.orders
    assert (order["model_id"], order["action"], order["generation"]) == (name, "stop", None)


@pytest.mark.parametrize(
    ("path", "body", "status", "word"),
    [
        ("desk/models/none/promote", {"reason": "r"}, 404, "has no model none"),
        ("desk/models/challenger/promote", {"reason": "r"}, 404, "challenger"),
        ("shop/models/champion/promote", {"reason": "r"}, 404, "shop"),
        ("desk/models/base/promote", {"reason": "r"}, 404, "has no model base"),
        ("shop/models/base/stop", {"reason": "r"}, 404, "shop"),
        ("desk/models/champion/explode", {"reason": "r"}, 422, "action"),
        ("desk/models/champion/promote", {"reason": ""}, 422, "reason"),
    ],
)
async def test_a_command_on_a_model_that_cannot_be_is_refused_at_the_door(
    state: Any, desk: Any, client: Any, recorder: Recorder, path: str, body: Any, status: int, word: str
):
    state.apply(desk.promoted())
    state.apply(desk.desired())
    answer = await client.post(f"/v1/projects/{path}", json=body)
    assert (answer.status_code, word in answer.text) == (status, True)
    assert not recorder.orders


async def test_a_command_on_a_model_waits_for_a_broker_that_is_away(
    state: Any, desk: Any, client: Any, recorder: Recorder
):
    state.apply(desk.promoted())
    recorder.away = True
    answer = await client.post(f"/v1/projects/desk/models/{desk.model_id()}/pin", json={"reason": "r"})
    assert answer.status_code == 503


async def test_a_scorecards_page_is_shown_with_nothing_that_runs(
    state: Any, desk: Any, client: Any, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
):
    place = "/v1/projects/desk/runs/run-1/scorecard"
    assert (await client.get(place)).status_code == 404
    verdict = desk.passed()
    state.apply(verdict)
    assert "no page" in (await client.get(place)).json()["error"]["message"]
    await store.put(verdict.data.scorecard.path.replace(".json", ".html"), b"<!doctype html><p>figures")
    answer = await client.get(place)
    assert (answer.status_code, answer.text) == (200, "<!doctype html><p>figures")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "sandbox" in policy

    async def away(path: str) -> bytes | None:
        raise TransientError("the store is away")

    monkeypatch.setattr(store, "read", away)
    assert (await client.get(place)).status_code == 503


async def test_a_scorecards_page_waits_for_the_reviewers_of_its_answers(
    state: Any, desk: Any, client: Any, store: ObjectStore
):
    asked = desk.review_requested(**desk.asks("review-1", items=2, reviewers=1))
    state.apply(asked)
    await store.put(asked.data.scorecard.path.replace(".json", ".html"), b"whose is whose")
    answer = await client.get("/v1/projects/desk/runs/run-1/scorecard")
    assert answer.status_code == 409
    assert "a review of run-1 is open" in answer.json()["error"]["message"]
    # The champion of the review may be the candidate of another page, with the same prompts.
    state.apply(desk.failed(run_id="run-0"))
    assert (await client.get("/v1/projects/desk/runs/run-0/scorecard")).status_code == 409
    state.apply(desk.passed())
    assert (await client.get("/v1/projects/desk/runs/run-1/scorecard")).status_code == 200
