"""The page of a run's scorecard over HTTP."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_console.control.files import add_scorecard_page
from tunewheel_console.control.runs import run_summary
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.events.training import TrainAction
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.refusals import answer_errors
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore


@pytest.fixture
def store() -> ObjectStore:
    return ObjectStore("memory:///")


@pytest.fixture
async def client(state: Any, store: ObjectStore):
    web = FastAPI(openapi_url=None)
    web.state.console = state
    add_scorecard_page(web, store)
    answer_errors(web)
    guard(web.routes, Access(HttpSettings(identity="open"), warn=lambda *_: None))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(web), base_url="http://console") as client:
        yield client


def test_a_paused_run_is_told_as_such(state: Any, desk: Any):
    state.apply(desk.started())
    state.apply(desk.controlled(TrainAction.PAUSE))
    project = state.projects["desk"]
    assert run_summary(project, project.runs["run-1"], {}).state == "paused"
    state.apply(desk.controlled(TrainAction.RESUME))
    assert run_summary(project, project.runs["run-1"], {}).state == "training"


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
