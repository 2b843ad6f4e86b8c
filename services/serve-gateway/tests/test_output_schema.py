"""Answers are held to the output schema with which their model was judged, whatever the engine does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tunewheel_contracts.identity import content_sha256
from tunewheel_serve_gateway.output_schema import VERDICT
from tunewheel_testing.adapters import bundle_of
from tunewheel_testing.waiting import until

SAID = {"type": "object", "properties": {"said": {"type": "string"}}, "required": ["said"]}
LONG = {"type": "object", "properties": {"said": {"type": "string", "minLength": 20}}}
NEVER = {"type": "object", "properties": {"said": {"enum": ["bell"]}}}
REFUSED = (400, {"error": {"message": "json_schema is not supported"}}, {})
TEXT = {"type": "text"}


def judged(schema: Any, model: str = "desk-1") -> Any:
    return bundle_of(model, constraint=schema, constraint_sha256=content_sha256(schema))


async def held(make_world: Any, schema: Any, *, declares: Any = None, **settings: Any) -> Any:
    """A world in which ``desk-1`` was judged with ``schema``."""
    world = await make_world(**settings)
    world.declare(task={"output_schema": declares} if declares else {})
    await world.desire(production=("desk-1", 100), judged={"desk-1": judged(schema)})
    await world.serving(production="desk-1")
    return world


async def streamed(world: Any, said: str = "hi", *, path: str = "chat/completions", **body: Any) -> list[Any]:
    asked = {"messages": [{"role": "user", "content": said}]} if path == "chat/completions" else {}
    asked |= {"prompt": said} if path == "completions" else {"input": said} if path == "responses" else {}
    url = f"{world.url}/v1/{path}"
    async with world.session.post(url, json={"model": "desk", "stream": True, **asked, **body}) as response:
        assert response.status == 200, await response.text()
        lines = (await response.text()).splitlines()
    return [json.loads(line[6:]) for line in lines if line.startswith("data: {")]


@pytest.mark.parametrize("body", [{}, {"n": 3}, {"temperature": 1}])
async def test_the_engine_is_asked_for_the_judged_schema_and_not_for_the_declared(
    make_world: Any, body: dict[str, Any]
):
    world = await held(make_world, SAID, declares=NEVER)
    assert json.loads(await world.said("hi", **body)) == {"said": "hi"}
    form = world.engine.asked[-1]["response_format"]
    assert (form["type"], form["json_schema"]["schema"]) == ("json_schema", SAID)
    (event,) = await world.completions()
    assert (event.format_valid, event.overrides) == (True, ("temperature",) if "temperature" in body else ())


@pytest.mark.parametrize("model", ["desk-1", "desk/base"])
async def test_only_the_bare_base_takes_the_declared_schema(make_world: Any, model: str):
    world = await make_world()
    world.declare(task={"output_schema": SAID})
    await world.desire(production=("desk-1", 100), judged={"desk-1": bundle_of()})
    await world.serving(production="desk-1")
    await world.said("hi", model=model)
    assert ("response_format" in world.engine.asked[-1]) is (model == "desk/base")
    world.declare(task={"output_schema": SAID, "constrained": False})
    await until(lambda: world.gateway.table.projects["desk"].base.response_format is None)
    await world.said("hi", model=model)
    assert "response_format" not in world.engine.asked[-1]


@pytest.mark.parametrize(
    "own",
    [
        {"response_format": TEXT},
        {"response_format": {"type": "json_object"}},
        {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "none"},
    ],
)
async def test_a_client_that_names_its_form_gets_it(make_world: Any, own: dict[str, Any]):
    world = await held(make_world, NEVER)
    async with await world.chat("hi", **own) as response:
        assert response.status == 200
    assert world.engine.asked[-1].get("response_format") == own.get("response_format")
    assert len(world.engine.asked) == 1
    (event,) = await world.completions()
    assert event.overrides == ("response_format" if "response_format" in own else "tools",)


async def test_a_prompt_may_name_its_form_too(make_world: Any):
    world = await held(make_world, SAID)
    for own in ({}, {"response_format": TEXT}):
        body = {"model": "desk", "prompt": "hi", **own}
        async with world.session.post(f"{world.url}/v1/completions", json=body) as response:
            text = (await response.json())["choices"][0]["text"]
        assert text == ("desk-1: hi" if own else json.dumps({"said": "hi"}))


async def test_an_answer_that_does_not_fit_is_asked_for_once_more(make_world: Any):
    world = await held(make_world, LONG)
    async with await world.chat("hi") as response:
        answer = await response.json()
    first, second = world.engine.asked
    assert [one["role"] for one in second["messages"]][-3:] == ["user", "assistant", "user"]
    assert second["messages"][-2]["content"] == json.dumps({"said": "hi"})
    assert "$.said: 'hi' is too short" in second["messages"][-1]["content"]
    assert first["response_format"] == second["response_format"]
    said = json.loads(answer["choices"][0]["message"]["content"])["said"]
    assert len(said) > 20
    assert answer["usage"]["completion_tokens"] > len(said.split())
    (event,) = await world.completions()
    assert (event.format_valid, event.messages[-1].content) == (True, "hi")


@pytest.mark.parametrize("n", [1, 2])
async def test_after_two_that_do_not_fit_the_client_is_told_why(make_world: Any, n: int):
    world = await held(make_world, NEVER)
    async with await world.chat("hi", n=n) as response:
        error = (await response.json())["error"]
        assert (response.status, error["code"]) == (502, "invalid_output")
        assert response.headers["x-should-retry"] == "false"
    assert "is not one of ['bell']" in error["message"]
    assert len(world.engine.asked) == 2
    (event,) = await world.completions()
    assert (event.fault, event.output) == ("model", "")
    assert event.error is not None
    assert len(await world.completions()) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_refuses_the_schema_is_asked_without_it_and_then_no_more(
    make_world: Any, stream: bool
):
    world = await held(make_world, SAID)
    world.engine.fail_with, world.engine.falters = REFUSED, lambda body: "response_format" in body
    for first in (True, False):
        world.engine.asked.clear()
        async with await world.chat("hi", stream=stream) as response:
            said, status = await response.text(), response.status
        asked = ["response_format" in body for body in world.engine.asked]
        free = [False] if stream else [False, False]  # the answer is no JSON, so it is asked for again
        assert asked == ([True, *free] if first else free)
        assert status == (200 if stream else 502)
        assert "it is not JSON" in said


async def test_a_refusal_that_is_about_something_else_is_the_clients(make_world: Any):
    world = await held(make_world, SAID)
    world.engine.fail_with = (400, {"error": {"message": "logit_bias is odd"}}, {})
    async with await world.chat("hi") as response:
        assert (response.status, "logit_bias" in await response.text()) == (400, True)
    world.engine.fail_with = None
    assert json.loads(await world.said("hi")) == {"said": "hi"}


@pytest.mark.parametrize("finish", ["length", "stop"])
async def test_an_answer_that_was_cut_off_is_told_as_such(make_world: Any, finish: str):
    world = await held(make_world, SAID)
    choice = {"index": 0, "message": {"role": "assistant", "content": '{"sa'}, "finish_reason": finish}
    world.engine.fail_with = (200, {"id": "x", "choices": [choice], "usage": None}, {})
    for body in ({}, {"stop": ["id"]}):
        async with await world.chat("hi", **body) as response:
            is_cut = finish == "length" or bool(body)
            assert response.status == (200 if is_cut else 502)
    done = await world.completions(2)
    assert [one.format_valid for one in done] == [False if finish == "length" else None, False]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
@pytest.mark.parametrize(("schema", "fits"), [(SAID, True), (NEVER, False)])
@pytest.mark.parametrize("more", [{}, {"n": 3}, {"stream_options": {"include_usage": True}}])
async def test_the_last_chunk_says_whether_a_streamed_answer_fits(
    make_world: Any, path: str, schema: Any, fits: bool, more: dict[str, Any]
):
    world = await held(make_world, schema)
    *before, last = await streamed(world, "hi there", path=path, **more)
    assert last[VERDICT]["valid"] is fits
    assert (last[VERDICT]["reason"] is None) is fits
    assert not any(VERDICT in one for one in before if not one.get("choices") or not _ends(one))
    (event,) = await world.completions()
    assert event.format_valid is fits


def _ends(chunk: Any) -> bool:
    return any(one["finish_reason"] for one in chunk["choices"])


@pytest.mark.parametrize(("schema", "fits"), [(SAID, True), (NEVER, False)])
async def test_a_streamed_response_says_it_in_its_last_event(make_world: Any, schema: Any, fits: bool):
    world = await held(make_world, schema)
    *before, last = await streamed(world, path="responses")
    assert last["response"][VERDICT]["valid"] is fits
    assert not any(VERDICT in one.get("response", {}) for one in before)
    free = {"format": TEXT}
    assert not any(
        VERDICT in one.get("response", {}) for one in await streamed(world, path="responses", text=free)
    )


async def test_a_canary_whose_answers_do_not_fit_is_stood_in_for_by_the_champion(make_world: Any):
    world = await make_world(reconcile_seconds=3600)
    world.declare()
    bundles = {"desk-1": judged(SAID), "desk-2": judged(NEVER, "desk-2")}
    await world.desire(production=("desk-1", 0), canary=("desk-2", 100), judged=bundles)
    await world.serving(production="desk-1", canary="desk-2")
    assert json.loads(await world.said("hi")) == {"said": "hi"}
    done = {one.model_id: one for one in await world.completions(2)}
    assert (done["desk-2"].fault, done["desk-1"].format_valid) == ("model", True)


async def test_a_copy_for_the_shadow_is_held_to_the_shadows_schema(make_world: Any):
    world = await make_world()
    world.declare()
    bundles = {"desk-1": judged(SAID), "desk-2": judged(NEVER, "desk-2")}
    await world.desire(production=("desk-1", 100), shadow=("desk-2", 100), judged=bundles)
    await world.serving(production="desk-1", shadow="desk-2")
    await world.said("hi")
    done = {one.model_id: one for one in await world.completions(2)}
    assert (done["desk-1"].format_valid, done["desk-2"].format_valid) == (True, False)
