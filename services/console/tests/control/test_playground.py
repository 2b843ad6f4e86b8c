"""One prompt, answered by a gateway double: who is asked, as whom, and who may see a candidate."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_console.control.neighbours import Neighbour
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.guard import set_caller
from tunewheel_runtime.identity.roles import Caller, Grant, Role
from tunewheel_testing.adapters import BASE
from tunewheel_testing.specs import spec_of

APPLICATION, DECIDER = frozenset({Role.APPLICATION}), frozenset({Role.APPLICATION, Role.REVIEWER})
SOURCES = json.dumps([{"document": "a.md", "heading": "A", "version": "rec-1"}])
PASSAGE = {
    "passage_id": "ps-1", "document_id": "a.md", "record_id": "rec-1", "title": "A", "heading": "A",
    "text": "A refund.", "tokens": 3, "score": 0.1, "words_rank": 1, "words_score": 1.0, "vector_rank": 1,
    "similarity": 0.5, "fit": None, "passes": True,
}  # fmt: skip
FOUND = {
    "project": "desk", "question": "q", "index_id": "ix-1", "top_k": 4, "floor": None, "budget_tokens": 9,
    "passages": [PASSAGE | {"sent": True}, PASSAGE | {"sent": False, "passage_id": "ps-2"}], "tokens": 3,
    "by_words_alone": None, "context": "A refund.", "milliseconds": 0.1,
}  # fmt: skip


class GatewayDouble:
    """Answers JSON, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.refuses: set[str] = set()
        self.doubts: set[str] = set()

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.keys.add(request.headers.get("authorization"))
        body = json.loads(request.content)
        if request.url.path == "/v1/search":
            return httpx.Response(200, json=FOUND)
        self.asked.append(body)
        if body["model"] in self.refuses:
            return httpx.Response(429, json={"error": {"message": "too many requests"}})
        is_sure = body["model"] not in self.doubts
        message = {"content": '{"a": 1}'} if is_sure else {"content": None, "refusal": "not sure"}
        choice = {"message": message, "finish_reason": "stop"}
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        headers = {"x-tunewheel-sources": SOURCES} if body.get("retrieval") == "on" else {}
        said = {"model": body["model"], "choices": [choice], "usage": usage}
        return httpx.Response(200, json=said, headers=headers)


def declared(**spec: Any) -> Any:
    return new_event(ProjectDeclared(project="desk", spec=spec_of("desk", **spec)), source="/test")


@pytest.fixture
def double(gateway: Neighbour) -> GatewayDouble:
    made = GatewayDouble()
    transport = httpx.MockTransport(made.answer)
    gateway.client = httpx.AsyncClient(transport=transport, base_url="http://gateway")
    return made


@pytest.fixture
def world(state: Any, desk: Any, double: GatewayDouble) -> GatewayDouble:
    """A champion, desk-1…, and a newer model that waits."""
    state.apply(declared(retrieval={}))
    state.apply(desk.desired())
    for n in (1, 2):
        names = {"model_id": f"desk-{n}0000000", "run_id": f"run-{n}", "dataset_id": f"ds-{n}"}
        state.apply(desk.say("model.registered", kind="adapter", base=BASE, adapter=desk.adapter(n), **names))
    return double


@pytest.fixture
def play(api: FastAPI) -> Any:
    async def play(roles: frozenset[Role] = DECIDER, **body: Any) -> httpx.Response:
        async def called(scope: Any, receive: Any, send: Any) -> None:
            set_caller(scope, Caller(Principal(name="ann"), (Grant(roles, frozenset({"desk"})),)))
            await api(scope, receive, send)

        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(called), base_url="http://console/v1"
        ) as client:
            sent = {"prompt": "How long?"} | body
            headers = {"authorization": "Bearer k-ann"}
            return await client.post("/projects/desk/playground", json=sent, headers=headers)

    return play


async def test_each_model_answers_with_and_without_passages_as_the_caller(play: Any, world: Any, desk: Any):
    told = (await play()).json()
    assert [(one["who"], one["passages"]) for one in told["answers"]] == [
        (who, passages) for passages in (False, True) for who in ("base", "champion", "candidate")
    ]
    names = ["desk/base", "desk/champion", "desk-20000000"]
    assert [(one["model"], one["retrieval"]) for one in world.asked] == [
        (name, way) for way in ("off", "on") for name in names
    ]
    assert world.keys == {"Bearer k-ann"}
    assert all("user" not in one for one in world.asked), "it would be a customer's traffic"
    without, with_ = told["answers"][0], told["answers"][3]
    assert (without["sources"], with_["sources"][0]["document"]) == ([], "a.md")
    assert (with_["prompt_tokens"], with_["completion_tokens"], with_["finish_reason"]) == (7, 3, "stop")
    assert [one["passage_id"] for one in told["found"]] == ["ps-1"]
    assert told["left_out"] == {}


async def test_every_request_names_its_model_so_that_it_is_no_routed_traffic(play: Any, world: Any):
    """The gateway draws a route for the project's bare name alone."""
    await play()
    assert "desk" not in {one["model"] for one in world.asked}


async def test_an_answer_is_judged_by_the_tasks_schema(play: Any, state: Any, desk: Any, world: Any):
    for kind, valid in (("integer", True), ("string", False)):
        schema = {"type": "object", "properties": {"a": {"type": kind}}}
        task = {"system_prompt": "Answer.", "output_schema": schema}
        state.apply(declared(task=task))
        (one,) = (await play(models=["base"])).json()["answers"]
        assert (one["format_valid"], one["violations"]) == (valid, [] if valid else ["output_schema"])


async def test_a_candidate_is_for_those_who_decide_about_it(play: Any, world: Any):
    told = (await play(APPLICATION)).json()
    assert {one["who"] for one in told["answers"]} == {"base", "champion"}
    assert "reviewers and operators" in told["left_out"]["candidate"]
    refused = await play(APPLICATION, candidate="desk-20000000")
    assert (refused.status_code, refused.json()["error"]["param"]) == (403, "candidate")
    assert (await play(frozenset({Role.OPERATOR}))).status_code == 403, "the gateway would refuse it too"


async def test_an_open_review_is_not_unblinded(play: Any, state: Any, desk: Any, store: Any, world: Any):
    state.apply(await desk.stored_review(store, items=2, reviewers=1))
    told = (await play()).json()
    assert "candidate" in told["left_out"]
    assert {one["who"] for one in told["answers"]} == {"base", "champion"}
    refused = await play(candidate="desk-20000000")
    assert (refused.status_code, refused.json()["error"]["param"]) == (409, "candidate")


async def test_a_refusal_of_one_model_is_told_beside_the_others_answers(play: Any, world: Any):
    world.refuses = {"desk/champion"}
    told = (await play(passages="without")).json()["answers"]
    assert [one["refusal"] for one in told] == [None, "too many requests", None]
    assert [one["format_valid"] for one in told] == [True, None, True]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"prompt": " \n"}, 422, "prompt"),
        ({"prompt": "x" * 8_001}, 422, "prompt"),
        ({"models": []}, 422, "models"),
        ({"models": ["desk-1"]}, 422, "models.0"),
        ({"max_tokens": 0}, 422, "max_tokens"),
        ({"passages": "some"}, 422, "passages"),
        ({"temperature": 1}, 422, "temperature"),
        ({"candidate": "desk-99999999"}, 404, "candidate"),
    ],
)
async def test_a_wrong_field_is_named(play: Any, world: Any, body: Any, status: int, param: str):
    answer = await play(**body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
    assert not world.asked


async def test_what_cannot_be_asked_says_why(play: Any, state: Any, desk: Any, double: Any):
    state.apply(desk.declared())
    told = (await play()).json()
    assert [one["who"] for one in told["answers"]] == ["base"]
    assert told["left_out"].keys() == {"champion", "candidate", "passages"}
    answer = await play(models=["champion"])
    assert (answer.status_code, answer.json()["error"]["param"]) == (409, "models")
    answer = await play(passages="with")
    assert (answer.status_code, answer.json()["error"]["param"]) == (409, "passages")


async def test_a_gateway_that_is_away_or_none_is_told_with_what_mends_it(
    play: Any, world: Any, gateway: Neighbour
):
    def away(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    def proxy(_: httpx.Request) -> httpx.Response:
        return httpx.Response(502, html="<h1>Bad gateway</h1>")

    for answer in (away, proxy):
        transport = httpx.MockTransport(answer)
        gateway.client = httpx.AsyncClient(transport=transport, base_url="http://gateway")
        told = await play(passages="without")
        assert (told.status_code, "TUNEWHEEL_GATEWAY_URL" in told.text) == (503, True)


async def test_a_withheld_answer_is_no_answer_that_breaks_the_format(play: Any, world: Any):
    world.doubts = {"desk/champion"}
    told = (await play(passages="without")).json()["answers"]
    assert [one["refusal"] for one in told] == [None, "not sure", None]
    assert [one["format_valid"] is None for one in told] == [False, True, False]
