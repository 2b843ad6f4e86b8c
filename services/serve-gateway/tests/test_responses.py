"""``/v1/responses`` by the official client: a real gateway, an engine that speaks chat alone."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from tunewheel_serve_gateway.errors import BadRequest
from tunewheel_serve_gateway.responses_request import parse_responses_request
from tunewheel_testing.waiting import until

TOOL: Any = {
    "type": "function",
    "name": "find_order",
    "description": "Where an order is",
    "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
    "strict": False,
}


@pytest.fixture(name="client")
async def give_client(world: Any) -> Any:
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_a_text_is_answered_and_logged_as_a_chat_is(world: Any, client: Any):
    response = await client.responses.create(model="desk", input="hello there", user="u-1")
    assert response.output_text == "desk-1: hello there"
    assert (response.status, response.model, response.store) == ("completed", "desk-1", False)
    assert (response.usage.input_tokens, response.usage.output_tokens) == (5, 3)
    (event,) = await world.completions()
    assert (event.completion_id, event.output, event.customer) == (response.id, "desk-1: hello there", "u-1")
    assert [(one.role, one.content) for one in event.messages] == [
        ("system", "Answer as JSON."), ("user", "hello there")
    ]  # fmt: skip
    assert event.overrides == ()
    rating = {"completion_id": response.id, "rating": "up"}
    async with world.session.post(f"{world.url}/v1/feedback", json=rating) as answer:
        assert answer.status == 202


async def test_instructions_take_the_place_of_the_projects_prompt(world: Any, client: Any):
    await client.responses.create(
        model="desk", input="hi", instructions="Be brief.", temperature=0, top_p=0.5, max_output_tokens=9
    )
    asked = world.engine.asked[-1]
    assert asked["messages"] == [
        {"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}
    ]  # fmt: skip
    assert (asked["temperature"], asked["top_p"], asked["max_completion_tokens"]) == (0, 0.5, 9)
    (event,) = await world.completions()
    assert event.overrides[0] == "system_prompt"


async def test_a_stream_has_openais_events_in_their_order(world: Any, client: Any):
    events = [e async for e in await client.responses.create(model="desk", input="hello", stream=True)]
    assert [event.type.removeprefix("response.") for event in events] == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in events] == list(range(10))
    whole = events[-1].response
    assert (whole.output_text, whole.usage.output_tokens) == ("desk-1: hello", 2)
    assert events[0].response.output == []
    assert {event.item_id for event in events[3:8]} == {whole.output[0].id}
    (event,) = await world.completions()
    assert (event.streamed, event.output, event.completion_id) == (True, "desk-1: hello", whole.id)


async def test_the_clients_helpers_read_a_schema_whole_and_streamed(world: Any, client: Any):
    class Said(BaseModel):
        said: str

    parsed = await client.responses.parse(model="desk", input="hi", text_format=Said)
    assert parsed.output_parsed == Said(said="hi")
    sent = world.engine.asked[-1]["response_format"]
    assert (sent["type"], sent["json_schema"]["name"], sent["json_schema"]["strict"]) == (
        "json_schema", "Said", True
    )  # fmt: skip
    async with client.responses.stream(model="desk", input="hi", text_format=Said) as stream:
        whole = await stream.get_final_response()
    assert whole.output_parsed == Said(said="hi")


async def test_a_function_is_called_and_its_output_answered(world: Any, client: Any):
    items: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "4711"}]}]
    first = await client.responses.create(model="desk", input=items, tools=[TOOL], tool_choice="auto")
    (call,) = first.output
    assert (call.type, call.name, json.loads(call.arguments)) == (
        "function_call", "find_order", {"order": "4711"}
    )  # fmt: skip
    items += [one.model_dump() for one in first.output]
    items.append({"type": "function_call_output", "call_id": call.call_id, "output": "in Bremen"})
    second = await client.responses.create(model="desk", input=items, tools=[TOOL])
    assert second.output_text == "desk-1: in Bremen"
    sent = world.engine.asked[-1]["messages"][1:]
    assert [one["role"] for one in sent] == ["user", "assistant", "tool"]
    assert sent[1]["tool_calls"][0]["id"] == sent[2]["tool_call_id"] == call.call_id
    # The answer goes back as it came, with ids, status and annotations.
    items += [one.model_dump() for one in second.output] + [{"role": "user", "content": "thanks"}]
    third = await client.responses.create(model="desk", input=items)
    assert third.output_text == "desk-1: thanks"
    assert [one["role"] for one in world.engine.asked[-1]["messages"][1:]] == [
        "user", "assistant", "tool", "assistant", "user"
    ]  # fmt: skip


async def test_a_streamed_call_has_its_events(client: Any):
    named: Any = {"type": "function", "name": "find_order"}
    stream = await client.responses.create(
        model="desk", input="4711", tools=[TOOL], tool_choice=named, stream=True
    )
    events = [event async for event in stream]
    kinds = [event.type.removeprefix("response.") for event in events]
    assert kinds[2:4] == ["output_item.added", "function_call_arguments.delta"]
    assert kinds[-3:] == ["function_call_arguments.done", "output_item.done", "completed"]
    said = "".join(event.delta for event in events if event.type.endswith("arguments.delta"))
    assert json.loads(said) == {"order": "4711"} == json.loads(events[-3].arguments)
    assert events[-1].response.output[0].call_id == "call_1"


def chunk(delta: Any, finish_reason: str | None = None) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish_reason}]
    return json.dumps({"id": "e", "created": 1, "choices": choices}).encode()


async def test_text_and_two_calls_are_three_items(world: Any, client: Any):
    def call(index: int, text: str, **more: Any) -> Any:
        return {"tool_calls": [{"index": index, "function": {"arguments": text, **more}}]}

    world.engine.stream_instead = [
        chunk({"role": "assistant", "content": "I look."}),
        chunk(call(0, "", name="find_order")),
        chunk(call(0, "{}")),
        chunk(call(1, '{"a"', name="find_order")),
        chunk(call(1, ": 1}")),
        chunk({}, "tool_calls"),
        b"[DONE]",
    ]
    async with client.responses.stream(model="desk", input="4711", tools=[TOOL]) as stream:
        whole = await stream.get_final_response()
    said = [one.content[0].text if one.type == "message" else one.arguments for one in whole.output]
    assert said == ["I look.", "{}", '{"a": 1}']
    assert len({one.id for one in whole.output}) == 3


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_that_was_cut_off_is_incomplete(world: Any, client: Any, stream: bool):
    message = {"role": "assistant", "content": "Your order"}
    choice = {"index": 0, "message": message, "finish_reason": "length"}
    world.engine.fail_with = None if stream else (200, {"id": "e", "choices": [choice]}, {})
    world.engine.stream_instead = [chunk(message), chunk({}, "length"), b"[DONE]"]
    response = await client.responses.create(model="desk", input="hello", stream=stream)
    if stream:
        events = [event async for event in response]
        assert events[-1].type == "response.incomplete"
        response = events[-1].response
    assert (response.status, response.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert (response.output_text, response.output[0].status) == ("Your order", "incomplete")


async def test_an_answer_that_breaks_off_is_raised_by_the_client(world: Any, client: Any):
    world.engine.break_off_after = 2
    stream = await client.responses.create(model="desk", input="one two three", stream=True)
    with pytest.raises(openai.APIError):
        [event async for event in stream]
    (event,) = await world.completions()
    assert event.fault == "engine"


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"previous_response_id": "resp_1"}, "previous_response_id"),
    ({"conversation": "conv_1"}, "conversation"),
    ({"background": True}, "background"),
    ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].type"),
    ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type"),
    ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
    ({"input": [{"type": "function_call_output", "call_id": "", "output": "x"}]}, "input[0].call_id"),
    ({"input": []}, "input"),
    ({"max_output_tokens": 5000}, "max_output_tokens"),
    ({"reasoning": {"effort": "high"}}, "reasoning"),
    ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format"),
    ({"tool_choice": "required"}, "tools"),
    ({"truncation": "auto"}, "truncation"),
    ({"seed": 1}, "seed"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=[param for _, param in REFUSED])
async def test_what_is_not_served_is_refused_by_its_own_name(client: Any, body: Any, param: str):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.post("/responses", cast_to=object, body={"model": "desk", "input": "hi", **body})
    assert caught.value.param == param
    assert param.partition("[")[0] in caught.value.message


def nested(field: str, depth: int) -> bytes:
    """A request whose ``field``, with a ``%s``, holds so many objects in each other."""
    value = '{"a":' * depth + "1" + "}" * depth
    return ('{"model": "desk", "input": "hi", ' + field % value + "}").encode()


SCHEMA = '"text": {"format": {"type": "json_schema", "name": "x", "schema": %s}}'
DEEP = ['"metadata": %s', SCHEMA, '"tools": [{"type": "function", "name": "x", "parameters": %s}]']


@pytest.mark.parametrize("field", DEEP)
def test_what_the_response_cannot_repeat_is_refused_before_an_engine_is_asked(field: str):
    def write(depth: int) -> None:
        form = parse_responses_request(nested(field, depth)).form
        assert form.piece({"id": "c", "model": "m", "choices": [{"delta": {"content": "x"}}]}) + form.end()

    write(10)
    for depths in (range(240, 260), (400,)):
        with pytest.raises(BadRequest) as caught:
            any(map(write, depths))  # what is taken can be written
        assert caught.value.param == "(body)"


@pytest.mark.parametrize("kind", ["text", "json_object"])
def test_a_format_without_schema_is_not_sent_as_one(kind: str):
    def request(**more: Any) -> bytes:
        return json.dumps({"model": "d", "input": "hi", "text": {"format": {"type": kind, **more}}}).encode()

    for more in ({}, {"strict": None}):
        assert parse_responses_request(request(**more)).parameters == {"response_format": {"type": kind}}
    for more in ({"strict": True}, {"name": "x"}, {"name": "x", "schema": {}}):
        with pytest.raises(BadRequest) as caught:
            parse_responses_request(request(**more))
        assert caught.value.param == "text.format"


async def test_an_engines_refusal_names_input_in_place_of_messages(world: Any, client: Any):
    world.engine.fail_with = (400, {"error": {"message": "maximum context length is 9"}}, {})
    with pytest.raises(openai.BadRequestError) as caught:
        await client.responses.create(model="desk", input="hi")
    assert (caught.value.param, caught.value.code) == ("input", "context_length_exceeded")


@pytest.mark.parametrize("stream", [False, True])
async def test_the_champion_answers_for_a_failing_canary_here_too(world: Any, client: Any, stream: bool):
    await world.desire(production=("desk-1", 0), canary=("desk-2", 100))
    await world.serving(production="desk-1", canary="desk-2")
    world.engine.fail_with = (500, {"error": {"message": "boom"}}, {})
    world.engine.falters = lambda body: body["model"] == "desk-2"
    response = await client.responses.create(model="desk", input="hello", stream=stream)
    if stream:
        response = [event async for event in response][-1].response
    assert (response.output_text, response.model) == ("desk-1: hello", "desk-1")
    await until(lambda: len(world.broker.of("inference.completed")) == 2)
