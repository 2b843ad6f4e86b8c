"""Chat over the wire: a real client, a real gateway server, a real engine-shaped server."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import openai
import pytest
from pydantic import BaseModel
from tunewheel_testing.waiting import until


def client_of(world: Any, key: str = "none") -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key=key, max_retries=0)


HELLO: Any = [{"role": "user", "content": "hello there"}]


async def test_the_official_client_gets_an_answer(world: Any):
    async with client_of(world) as client:
        answer = await client.chat.completions.create(model="desk", messages=HELLO)
    assert answer.choices[0].message.content == "desk-1: hello there"
    assert answer.model == "desk-1"
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0
    (event,) = await world.completions()
    assert event.completion_id == answer.id
    assert event.output == "desk-1: hello there"
    assert (event.role, event.pinned, event.finish_reason) == ("production", False, "stop")
    assert event.prompt_tokens == answer.usage.prompt_tokens
    assert [m.role for m in event.messages] == ["system", "user"]
    assert event.latency_seconds > 0


async def test_the_official_client_gets_a_stream_with_usage(world: Any):
    async with client_of(world) as client:
        stream = await client.chat.completions.create(
            model="desk", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
        chunks = [chunk async for chunk in stream]
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == "desk-1: hello there"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3
    assert len({c.id for c in chunks}) == 1
    (event,) = await world.completions()
    assert (event.completion_id, event.output, event.streamed) == (chunks[0].id, text, True)
    assert (event.prompt_tokens, event.completion_tokens) == (5, 3)
    assert event.first_token_seconds is not None
    assert event.first_token_seconds <= event.latency_seconds


async def test_the_official_clients_helpers_work(world: Any):
    class Said(BaseModel):
        said: str

    async with client_of(world) as client:
        async with client.chat.completions.stream(model="desk", messages=HELLO) as stream:
            whole = await stream.get_final_completion()
        asked: Any = [{"role": "user", "content": "hi"}]
        answer = await client.chat.completions.parse(model="desk", messages=asked, response_format=Said)
    assert answer.choices[0].message.parsed == Said(said="hi")
    assert whole.choices[0].message.content == "desk-1: hello there"
    assert world.engine.asked[-1]["response_format"]["type"] == "json_schema"


async def test_usage_is_counted_but_not_shown_to_a_stream_that_did_not_ask(world: Any):
    async with client_of(world) as client:
        stream = await client.chat.completions.create(model="desk", messages=HELLO, stream=True)
        chunks = [chunk async for chunk in stream]
    assert all(chunk.usage is None and chunk.choices for chunk in chunks)
    (event,) = await world.completions()
    assert event.completion_tokens == 3


async def test_pieces_are_passed_on_as_they_come(world: Any):
    world.engine.gate.clear()
    async with client_of(world) as client:
        stream = await client.chat.completions.create(model="desk", messages=HELLO, stream=True)
        first = await anext(stream)
        assert first.choices[0].delta.content == "desk-1:"
        world.engine.gate.set()
        assert len([chunk async for chunk in stream]) == 3


async def test_completion_ids_are_unique(world: Any):
    ids = set()
    for _ in range(5):
        async with await world.chat() as response:
            ids.add((await response.json())["id"])
    assert len(ids) == 5


async def test_the_system_prompt_is_prepended_unless_the_client_has_one(world: Any):
    await world.said("one")
    assert world.engine.asked[-1]["messages"][0] == {"role": "system", "content": "Answer as JSON."}
    mine = [{"role": "developer", "content": "mine"}, {"role": "user", "content": "two"}]
    await world.said(messages=mine)
    assert world.engine.asked[-1]["messages"] == [{"role": "system", "content": "mine"}, mine[1]]


async def test_other_parameters_reach_the_engine(world: Any):
    await world.said(temperature=0, max_tokens=7, seed=3, stop=["x"])
    asked = world.engine.asked[-1]
    assert (asked["temperature"], asked["max_tokens"], asked["seed"], asked["stop"]) == (0, 7, 3, ["x"])


async def test_other_parameters_do_not_reach_the_engine(world: Any):
    async with client_of(world) as client:
        await client.chat.completions.create(
            model="desk",
            messages=HELLO,
            stream=False,
            n=1,
            user="u1",
            metadata={"a": "b"},
            store=True,
            service_tier="auto",
            prompt_cache_key="p",
            tools=[],
            temperature=None,
        )
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(
                model="desk", messages=HELLO, extra_body={"chat_template": "{{ messages }}"}
            )
    assert (caught.value.param, caught.value.code) == ("chat_template", "unknown_parameter")
    (asked,) = world.engine.asked
    assert set(asked) == {"model", "messages", "stream", "max_tokens", "n"}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_may_ask_for_so_many_tokens_and_no_more(make_world: Any, stream: bool):
    world = await make_world(max_output_tokens=300)
    world.declare()
    await world.serving(production="org/Tiny-Base")
    for name in ("max_tokens", "max_completion_tokens"):
        async with await world.chat(stream=stream, **{name: 300}) as response:
            assert response.status == 200
        async with await world.chat(stream=stream, **{name: 301}) as response:
            error = (await response.json())["error"]
            assert (response.status, error["param"]) == (400, name)
            assert "300" in error["message"]
    assert len(world.engine.asked) == 2


async def test_a_projects_own_limit_may_be_larger_than_the_gateways(make_world: Any):
    world = await make_world(max_output_tokens=10)
    world.declare()  # whose answers have up to 256 tokens
    await world.serving(production="org/Tiny-Base")
    await world.said(max_tokens=256)
    async with await world.chat(max_tokens=257) as response:
        assert response.status == 400


async def test_the_projects_output_limit_counts_unless_the_client_sets_one(world: Any):
    await world.said()
    assert world.engine.asked[-1]["max_tokens"] == 256
    await world.said(max_completion_tokens=9)
    assert world.engine.asked[-1]["max_completion_tokens"] == 9
    assert "max_tokens" not in world.engine.asked[-1]


@pytest.mark.parametrize("name", ["org/Tiny-Base", "desk/base"])
async def test_the_base_answers_to_its_name(world: Any, name: str):
    assert await world.said(model=name) == "org/Tiny-Base: hello"
    (event,) = await world.completions()
    assert event.pinned
    assert world.engine.asked[-1]["messages"][0]["role"] == "system"


async def test_a_model_id_pins_the_model(world: Any):
    await world.desire(production=("desk-1", 50), canary=("desk-2", 50))
    await world.serving(production="desk-1", canary="desk-2")
    for _ in range(5):
        assert await world.said(model="desk-2") == "desk-2: hello"
    events = await world.completions(5)
    assert all(event.pinned and event.role == "canary" for event in events)


async def test_the_answer_says_who_gave_it(world: Any):
    async with await world.chat() as response:
        assert response.headers["x-tunewheel-model"] == "desk-1"
        assert response.headers["x-tunewheel-role"] == "production"


async def test_a_project_without_models_is_answered_by_its_base(make_world: Any):
    world = await make_world()
    world.declare()
    await until(lambda: "desk" in world.gateway.table.projects)
    assert await world.said() == "org/Tiny-Base: hello"


BAD: list[tuple[Any, str]] = [
    (b"{", "(body)"),
    ({"messages": HELLO}, "model"),
    ({"model": "", "messages": HELLO}, "model"),
    ({"model": "desk"}, "messages"),
    ({"model": "desk", "messages": HELLO, "tools": [{}]}, "tools[0].type"),
]


@pytest.mark.parametrize(("body", "param"), BAD, ids=[f"{n}-{param}" for n, (_, param) in enumerate(BAD)])
async def test_a_wrong_request_names_the_field_and_all_after_it_is_answered(
    world: Any, body: Any, param: str
):
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with world.session.post(f"{world.url}/v1/chat/completions", data=raw) as response:
        error = (await response.json())["error"]
        assert (response.status, error["param"]) == (400, param)
        assert error["type"] == "invalid_request_error"
        assert error["message"]
    assert world.engine.asked == []
    assert await world.said() == "desk-1: hello"


async def test_text_parts_are_joined(world: Any):
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert await world.said(messages=[{"role": "user", "content": parts}]) == "desk-1: ab"


async def test_a_model_can_be_asked_for_by_name(world: Any):
    async with client_of(world) as client:
        for name in ("desk", "desk/base", "org/Tiny-Base", "desk-1"):
            assert (await client.models.retrieve(name)).id == name
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("nobody")
    assert caught.value.code == "model_not_found"


async def test_an_unknown_model_is_404_and_names_the_projects(world: Any):
    async with client_of(world) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(model="nobody", messages=HELLO)
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"
    assert "projects here: desk" in str(caught.value)


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_over_the_limit_is_413(make_world: Any, chunked: bool):
    world = await make_world(max_body_bytes=1000)

    async def pieces() -> Any:
        for _ in range(20):
            yield b"x" * 100

    data = pieces() if chunked else b"x" * 2000
    async with world.session.post(f"{world.url}/v1/chat/completions", data=data) as response:
        assert response.status == 413
        assert "1000 bytes" in (await response.json())["error"]["message"]


async def test_an_engine_that_is_away_is_503_with_retry_after(world: Any):
    await world.engine.stop()
    for stream in (False, True):
        async with await world.chat(stream=stream) as response:
            assert response.status == 503
            assert int(response.headers["retry-after"]) >= 1
            assert (await response.json())["error"]["code"] == "engine_unavailable"
    await world.engine.restart()
    assert await world.said() == "desk-1: hello"
    assert len(await world.completions()) == 1


async def test_the_engines_429_is_passed_on(world: Any):
    full = {"error": {"message": "the queue is full", "type": "rate_limit_error"}}
    world.engine.fail_with = (429, full, {"retry-after": "7"})
    async with await world.chat() as response:
        assert response.status == 429
        assert response.headers["retry-after"] == "7"
        assert (await response.json())["error"]["message"] == "the queue is full"


async def test_the_engines_refusal_keeps_its_param(world: Any):
    refusal = {"message": "must be >= 0", "type": "BadRequestError", "param": "temperature", "code": 400}
    world.engine.fail_with = (400, {"error": {**refusal, "trace": "secret"}}, {})
    async with client_of(world) as client:
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="desk", messages=HELLO)
    told = {"message": "must be >= 0", "type": "invalid_request_error", "param": "temperature", "code": None}
    assert caught.value.body == told


@pytest.mark.parametrize("status", [401, 403])
async def test_an_engine_that_does_not_know_the_gateway_is_no_fault_of_the_clients_key(
    world: Any, status: int
):
    world.engine.fail_with = (status, {"error": {"message": "Unauthorized"}}, {})
    async with client_of(world) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="desk", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (503, "engine_unavailable")
    assert "TUNEWHEEL_ENGINE_API_KEY" in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unexpected_error_has_openais_shape(
    world: Any, stream: bool, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr(world.gateway.reconciler.table.__class__, "find", broken)
    async with client_of(world) as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="desk", messages=HELLO, stream=stream)
    assert isinstance(caught.value.body, dict)
    assert caught.value.body["type"] == "server_error"
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("status", "answered", "fault"), [(500, 502, "model"), (400, 400, "client"), (422, 422, "client")]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_failed_request_says_whose_fault_it_is(
    world: Any, status: int, answered: int, fault: str, stream: bool
):
    world.engine.fail_with = (status, {"error": {"message": "boom"}}, {})
    async with await world.chat(stream=stream) as response:
        assert response.status == answered
        # what an engine says of its own faults may name its files and addresses
        assert ("boom" in await response.text()) == (fault == "client")
    (event,) = await world.completions()
    assert event.error is not None
    assert "boom" in event.error
    assert (event.finish_reason, event.fault, event.format_valid) == ("error", fault, None)


NO_ANSWERS: dict[str, Any] = {
    "an error": {"error": {"message": "boom", "type": "server_error"}},
    "an old error": {"object": "error", "message": "boom", "code": 500},
    "no choices": {"object": "chat.completion", "choices": []},
    "choices of nothing": {"choices": [None]},
    "no message": {"choices": [{"index": 0, "message": None, "delta": "x"}]},
    "no text": {"choices": [{"index": 0, "message": {"content": 3}, "delta": {"content": 3}}]},
    "something else": {"status": "ok"},
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("body", NO_ANSWERS.values(), ids=NO_ANSWERS)
async def test_an_engine_response_that_is_no_answer_is_a_502_whatever_its_status(
    world: Any, body: Any, stream: bool
):
    world.engine.fail_with = (200, body, {})
    world.engine.stream_instead = [json.dumps(body).encode(), b"[DONE]"]
    if stream:
        world.engine.fail_with = None
    async with await world.chat(stream=stream) as response:
        assert response.status == 502, await response.text()
        assert (await response.json())["error"]["code"] == "engine_error"
    (event,) = await world.completions()
    assert (event.finish_reason, event.output) == ("error", "")
    assert event.fault == ("model" if body.get("code") == 500 else "engine")
    assert world.gateway.metrics.value("completions.answered") == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("code", "status", "name"), [(400, 400, "max_tokens"), (429, 429, None), (503, 503, None)]
)
async def test_an_error_keeps_its_own_status_where_it_came_as_a_success(
    world: Any, code: int, status: int, name: str | None, stream: bool
):
    body = {"error": {"message": "not so", "type": "some", "code": code, "param": name}}
    told = "not so" if code < 500 else "the inference engine is unavailable; try again shortly"
    world.engine.fail_with = None if stream else (200, body, {})
    world.engine.stream_instead = [json.dumps(body).encode()]
    async with await world.chat(stream=stream) as response:
        error = (await response.json())["error"]
        assert (response.status, error["message"], error["param"]) == (status, told, name)
    world.engine.fail_with = world.engine.stream_instead = None
    await world.said()
    faults = [event.fault for event in await world.completions(1 + (code == 400))]
    assert faults == (["client", None] if code == 400 else [None])  # an engine that is full says nothing


async def test_a_stream_that_ends_before_it_began_is_no_answer(world: Any):
    world.engine.stream_instead = [b"[DONE]"]
    async with await world.chat(stream=True) as response:
        assert response.status == 502
    world.engine.stream_instead = [
        b'{"choices": []}',
        b'{"choices": [{"delta": {"content": "hi"}}], "usage": "none"}',
        b'{"choices": [{"delta": null, "finish_reason": "stop"}]}',
        b"[DONE]",
    ]
    async with await world.chat(stream=True) as response:
        assert (response.status, '"hi"' in await response.text()) == (200, True)


async def test_a_stream_that_breaks_off_ends_with_an_error(world: Any):
    world.engine.break_off_after = 2
    async with client_of(world) as client:
        stream = await client.chat.completions.create(model="desk", messages=HELLO, stream=True)
        with pytest.raises(openai.APIError, match="broke off"):
            [chunk async for chunk in stream]
    (event,) = await world.completions()
    assert event.output == "desk-1: hello"
    assert event.error is not None
    assert event.fault == "engine"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_goes_away_frees_the_engine(world: Any, stream: bool):
    world.engine.gate.clear()
    async with aiohttp.ClientSession() as leaving:
        body = {"model": "desk", "messages": HELLO, "stream": stream}
        asking = asyncio.create_task(leaving.post(f"{world.url}/v1/chat/completions", json=body))
        await until(lambda: world.engine.running == 1, "the engine at work")
        if stream:
            response = await asking
            await response.content.readany()
            response.close()
        else:
            asking.cancel()
    await until(lambda: world.engine.running == 0, "the engine at rest")
    assert world.engine.cancelled == 1
    await until(lambda: world.gateway.metrics.value("completions.disconnected") == 1)
    world.engine.gate.set()
    assert await world.said() == "desk-1: hello"
    left, answered = await world.completions(2)
    assert (left.cancelled, left.finish_reason, left.error) == (True, "cancelled", None)
    assert (left.output, left.format_valid) == ("desk-1:" if stream else "", None)
    assert left.latency_seconds > 0
    assert not answered.cancelled


async def test_nothing_is_answered_before_the_views_are_read(make_world: Any):
    world = await make_world()
    await world.gateway.close()
    async with await world.chat() as response:
        assert response.status == 503
        assert "starting" in (await response.json())["error"]["message"]
    await world.gateway.start()
