"""OpenAI's Python client with its defaults, retries included. ``test_chat.py`` has what every client does."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

HELLO: Any = [{"role": "user", "content": "hello there"}]
TOOLS: Any = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
AWAY = {"error": {"message": "warming up"}}


@pytest.fixture
async def client(world: Any) -> Any:
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none") as made:
        yield made


async def test_a_tool_is_called_and_its_answer_taken(world: Any, client: Any):
    first = await client.chat.completions.create(model="desk", messages=HELLO, tools=TOOLS)
    message = first.choices[0].message
    assert (first.choices[0].finish_reason, message.content) == ("tool_calls", None)
    (call,) = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("look_up", {"order": "hello there"})
    told = {"role": "tool", "tool_call_id": call.id, "content": "it is on its way"}
    second = await client.chat.completions.create(model="desk", messages=[*HELLO, message, told], tools=TOOLS)
    assert second.choices[0].message.content == "desk-1: it is on its way"
    roles = [one["role"] for one in world.engine.asked[-1]["messages"]]
    assert roles == ["system", "user", "assistant", "tool"]
    calling, answering = await world.completions(2)
    assert json.loads(calling.output) == [call.model_dump()]
    assert [one.role for one in answering.messages] == ["system", "user", "assistant", "system"]
    assert answering.messages[2].content == calling.output


async def test_a_tool_call_comes_in_pieces_and_is_logged_whole(world: Any, client: Any):
    async with client.chat.completions.stream(model="desk", messages=HELLO, tools=TOOLS) as stream:
        whole = await stream.get_final_completion()
    (call,) = whole.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"order": "hello there"}
    (event,) = await world.completions()
    (logged,) = json.loads(event.output)
    assert (logged["id"], logged["function"]["arguments"]) == (call.id, call.function.arguments)
    assert event.first_token_seconds is not None
    assert event.finish_reason == "tool_calls"


@pytest.mark.parametrize("stream", [False, True])
async def test_several_answers_have_their_numbers_and_the_log_has_the_first(
    world: Any, client: Any, stream: bool
):
    answer = await client.chat.completions.create(model="desk", messages=HELLO, n=3, stream=stream)
    texts = ["", "", ""]
    if stream:
        async for chunk in answer:
            for choice in chunk.choices:
                texts[choice.index] += choice.delta.content or ""
    else:
        texts = [choice.message.content for choice in answer.choices]
    assert texts == ["desk-1: hello there", "desk-1: hello there #1", "desk-1: hello there #2"]
    (event,) = await world.completions()
    assert (event.output, event.finish_reason) == (texts[0], "stop")
    assert event.completion_tokens == sum(len(text.split()) for text in texts)


async def test_log_probabilities_are_passed_on(client: Any):
    asked = {"model": "desk", "messages": HELLO, "logprobs": True, "top_logprobs": 2}
    answer = await client.chat.completions.create(**asked)
    assert answer.choices[0].logprobs.content[0].logprob == -0.5
    stream = await client.chat.completions.create(**asked, stream=True)
    told = [chunk.choices[0].logprobs async for chunk in stream]
    assert [one.content[0].logprob for one in told if one] == [-0.5, -0.5, -0.5]


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_retries_a_temporary_failure(world: Any, client: Any, status: int, stream: bool):
    world.engine.first["hello there"] = [(status, AWAY, {"retry-after": "0.01"})]
    answer = await client.chat.completions.create(model="desk", messages=HELLO, stream=stream)
    if stream:
        assert [chunk async for chunk in answer]
    assert len(world.engine.asked) == 2


async def test_the_client_does_not_retry_a_lasting_failure(world: Any, client: Any):
    too_long = "This model's maximum context length is 8 tokens. However, you requested 9 tokens."
    world.engine.fail_with = (400, {"object": "error", "message": too_long, "code": 400}, {})
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model="desk", messages=HELLO)
    assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")
    assert caught.value.request_id
    world.engine.fail_with = None
    for wrong, kind in (
        ({"model": "nobody"}, openai.NotFoundError),
        ({"n": 99}, openai.BadRequestError),
        ({"modalities": ["audio"]}, openai.BadRequestError),
    ):
        with pytest.raises(kind):
            await client.chat.completions.create(**({"model": "desk", "messages": HELLO} | wrong))
    assert len(world.engine.asked) == 1


async def test_an_engine_that_was_waited_for_in_vain_is_not_waited_for_again(make_world: Any):
    world = await make_world(engine_timeout_seconds=0.2)
    world.declare()
    await world.serving(production="org/Tiny-Base")
    world.engine.gate.clear()
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none") as client:
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="desk", messages=HELLO)
    assert (caught.value.status_code, caught.value.code) == (504, "engine_timeout")
    assert len(world.engine.asked) == 1


async def test_each_answer_has_an_id_of_its_own_or_the_clients(world: Any, client: Any):
    answers = [await client.chat.completions.create(model="desk", messages=HELLO) for _ in range(2)]
    assert len({answer._request_id for answer in answers} - {None}) == 2
    for sent, told in (("order-7:2", True), ("x" * 200, False), ("a b", False)):
        async with world.session.get(f"{world.url}/v1/nothing", headers={"x-request-id": sent}) as response:
            assert (response.headers["x-request-id"] == sent) == told
            assert (response.status, (await response.json())["error"]["code"]) == (404, "unknown_url")


async def test_another_method_is_told_which_there_is(world: Any):
    async with world.session.get(f"{world.url}/v1/chat/completions") as response:
        assert (response.status, response.headers["allow"]) == (405, "POST")
        assert (await response.json())["error"]["code"] == "method_not_allowed"
