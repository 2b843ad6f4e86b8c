"""The rest of OpenAI's surface: prompts, names of models, lists of tokens, fields of a newer client."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from pydantic import ValidationError
from tunewheel_serve_gateway.settings import Settings

HELLO: Any = [{"role": "user", "content": "hello"}]


@pytest.fixture(name="client")
async def give_client(world: Any) -> Any:
    async with openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none", max_retries=0) as client:
        yield client


async def test_a_prompt_is_one_turn_of_a_user_without_the_projects_prompt(world: Any, client: Any):
    answer = await client.completions.create(
        model="desk", prompt="Once upon", max_tokens=5, stop=["."], n=2, user="u-1"
    )
    assert [choice.text for choice in answer.choices] == ["desk-1: Once upon", "desk-1: Once upon #1"]
    assert (answer.object, answer.model, answer.choices[0].finish_reason) == (
        "text_completion", "desk-1", "stop"
    )  # fmt: skip
    asked = world.engine.asked[-1]
    assert asked["messages"] == [{"role": "user", "content": "Once upon"}]
    assert (asked["max_tokens"], asked["stop"]) == (5, ["."])
    (event,) = await world.completions()
    assert (event.completion_id, event.customer) == (answer.id, "u-1")
    assert "system_prompt" in event.overrides
    assert [one.role for one in event.messages] == ["user"]


async def test_a_prompts_answer_is_streamed_with_its_usage(world: Any, client: Any):
    stream = await client.completions.create(
        model="desk", prompt=["Once upon"], stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].text for c in chunks if c.choices) == "desk-1: Once upon"
    assert chunks[-1].usage.completion_tokens == 3
    assert {chunk.object for chunk in chunks} == {"text_completion"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"prompt": [1, 2]}, "prompt[0]"),
    ({"prompt": [[1, 2]]}, "prompt[0]"),
    ({"prompt": ["a", "b"]}, "prompt"),
    ({"prompt": ""}, "prompt"),
    ({"echo": True}, "echo"),
    ({"logprobs": 3}, "logprobs"),
    ({"suffix": "x"}, "suffix"),
    ({"best_of": 2}, "best_of"),
    ({"max_tokens": 5000}, "max_tokens"),
    ({"messages": HELLO}, "messages"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED, ids=[f"{n}-{p}" for n, (_, p) in enumerate(REFUSED)])
async def test_what_a_prompt_cannot_have_is_refused_by_name(client: Any, body: Any, param: str):
    with pytest.raises(openai.BadRequestError) as caught:
        await client.post("/completions", cast_to=object, body={"model": "desk", "prompt": "hi", **body})
    assert caught.value.param == param


async def test_every_name_that_is_served_can_be_read(world: Any, client: Any):
    await world.desire(production=("desk-1", 50), canary=("desk-2", 50))
    await world.serving(production="desk-1", canary="desk-2")
    names = [model.id async for model in client.models.list()]
    for name in [*names, "desk/champion", "desk/challenger"]:
        assert (await client.models.retrieve(name)).id == name
        answer = await client.chat.completions.create(model=name, messages=HELLO)
        assert answer.model
    await world.desire(production=("desk-2", 100))
    await world.serving(production="desk-2", canary=None)
    for name in ("desk/challenger", "desk/other", "nobody/champion", "desk-9"):
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve(name)


@pytest.mark.parametrize("tokens", [[9906, 11], [[9906], [11]]])
async def test_token_ids_are_refused_with_the_clients_own_switch(client: Any, tokens: Any):
    with pytest.raises(openai.BadRequestError, match="check_embedding_ctx_length=False") as caught:
        await client.embeddings.create(model="desk", input=tokens)
    assert caught.value.param == "input[0]"


async def test_an_assistants_refusal_is_sent_back(world: Any, client: Any):
    part: Any = [{"type": "refusal", "refusal": "I may not."}]
    for message in ({"content": part}, {"content": None, "refusal": "I may not."}):
        earlier: Any = [*HELLO, {"role": "assistant", **message}, *HELLO]
        await client.chat.completions.create(model="desk", messages=earlier)
        assert world.engine.asked[-1]["messages"][2] == {"role": "assistant", "content": "I may not."}
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(
            model="desk", messages=[{"role": "user", "content": None, "refusal": "no"}]
        )
    assert caught.value.param == "messages[0].content"


async def test_fields_that_the_operator_names_are_left_out_and_named(make_world: Any):
    world = await make_world(dropped_fields="reasoning_effort, new_field,chat_template")
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    newer = {"new_field": 1, "reasoning_effort": "high", "seed": 3}
    for stream in (False, True):
        async with await world.chat(stream=stream, **newer) as response:
            assert response.status == 200
            assert response.headers["x-tunewheel-dropped"] == "new_field, reasoning_effort"
    assert world.engine.asked[-1]["seed"] == 3
    assert not {"new_field", "reasoning_effort"} & world.engine.asked[-1].keys()
    async with await world.chat() as response:
        assert "x-tunewheel-dropped" not in response.headers
    async with await world.chat(other_field=1) as response:
        assert (response.status, (await response.json())["error"]["param"]) == (400, "other_field")
    body = {"model": "desk", "input": "hi", "new_field": 2}
    async with world.session.post(f"{world.url}/v1/responses", json=body) as response:
        assert (response.status, response.headers["x-tunewheel-dropped"]) == (200, "new_field")
    async with world.session.post(f"{world.url}/v1/embeddings", json=body) as response:
        assert (response.status, response.headers["x-tunewheel-dropped"]) == (200, "new_field")


@pytest.mark.parametrize(
    "name",
    ["seed", "messages", "input", "previous_response_id", "prompt", "user", "safety_identifier", "a b", "é"],
)
def test_a_field_that_is_served_cannot_be_dropped(name: str):
    with pytest.raises(ValidationError, match="dropped_fields"):
        Settings(dropped_fields=f"reasoning_effort,{name}")
