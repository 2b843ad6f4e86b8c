"""Chat and completions, as the official client speaks them."""

from __future__ import annotations

import asyncio

import openai
import pytest
from openai import AsyncOpenAI

pytestmark = [pytest.mark.e2e, pytest.mark.nightly("models")]

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
STORY = [{"role": "user", "content": "Tell me a long story about a bicycle."}]


async def test_the_greedy_answer_is_that_of_transformers(client: AsyncOpenAI, engine, expected) -> None:
    answer = await client.chat.completions.create(
        model=engine.model, messages=QUESTION, temperature=0, max_tokens=24
    )
    choice = answer.choices[0]
    assert choice.message.role == "assistant"
    assert choice.message.content == expected["question"]
    assert choice.finish_reason == "stop"
    assert answer.model == engine.model
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens > 20
    assert 3 < answer.usage.completion_tokens <= 24


async def test_a_stream_gives_the_same_text_piece_by_piece(client: AsyncOpenAI, engine) -> None:
    common = {"model": engine.model, "messages": STORY, "temperature": 0, "max_tokens": 20}
    whole = await client.chat.completions.create(**common)
    stream = await client.chat.completions.create(
        **common, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]

    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices]
    assert "".join(text or "" for text in texts) == whole.choices[0].message.content
    assert sum(bool(text) for text in texts) > 5
    assert chunks[0].choices[0].delta.role == "assistant"
    reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
    assert reasons[-1] == "length"
    assert not any(reasons[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


async def test_max_tokens_ends_the_answer(client: AsyncOpenAI, engine) -> None:
    for limit in ({"max_tokens": 5}, {"max_completion_tokens": 5}):
        answer = await client.chat.completions.create(
            model=engine.model, messages=STORY, temperature=0, **limit
        )
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.completion_tokens == 5


async def test_a_stop_string_ends_the_answer_before_it(client: AsyncOpenAI, engine) -> None:
    common = {"model": engine.model, "messages": STORY, "temperature": 0, "max_tokens": 20}
    whole = (await client.chat.completions.create(**common)).choices[0].message.content
    # In the middle of a word and over a token's end, where the text must be held back.
    middle = len(whole) // 2
    stop = whole[middle : middle + 7]
    assert whole.index(stop) == middle

    for stops in (stop, ["never said", stop]):
        answer = (await client.chat.completions.create(**common, stop=stops)).choices[0]
        assert answer.message.content == whole[:middle]
        assert answer.finish_reason == "stop"
    stream = await client.chat.completions.create(**common, stop=[stop], stream=True)
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream if chunk.choices]
    assert "".join(pieces) == whole[:middle]


async def test_a_seed_repeats_what_chance_chose(client: AsyncOpenAI, engine) -> None:
    async def say(seed: int) -> str:
        answer = await client.chat.completions.create(
            model=engine.model, messages=STORY, temperature=1.0, top_p=0.9, seed=seed, max_tokens=12
        )
        return answer.choices[0].message.content

    first, again = [await asyncio.gather(*(say(seed) for seed in (1, 2, 3))) for _ in range(2)]
    assert len(set(first)) > 1
    assert again == first


async def test_a_plain_prompt_is_continued(client: AsyncOpenAI, engine) -> None:
    common = {"model": engine.model, "prompt": "The capital of France is", "temperature": 0, "max_tokens": 6}
    answer = await client.completions.create(**common)
    assert "Paris" in answer.choices[0].text
    assert answer.usage.completion_tokens == 6
    stream = await client.completions.create(**common, stream=True)
    assert "".join([chunk.choices[0].text async for chunk in stream]) == answer.choices[0].text


async def test_the_base_model_is_listed(client: AsyncOpenAI, engine) -> None:
    assert engine.model in [model.id async for model in client.models.list()]


async def test_an_unknown_model_is_not_found(client: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        await client.chat.completions.create(model="no-such-model", messages=QUESTION)


@pytest.mark.parametrize(
    ("param", "value"),
    [("temperature", -1), ("top_p", 7), ("max_tokens", 0), ("max_tokens", 10**6), ("messages", "hello")],
)
async def test_a_wrong_parameter_is_named(client: AsyncOpenAI, engine, param: str, value: object) -> None:
    body = {"model": engine.model, "messages": QUESTION, param: value}
    with pytest.raises((openai.BadRequestError, openai.UnprocessableEntityError)) as caught:
        await client.chat.completions.create(**body)
    assert param in str(caught.value)
    assert caught.value.body["message"]


@pytest.mark.parametrize(
    ("param", "value"),
    [("best_of", 2), ("functions", [{"name": "f"}]), ("colour", "red"), ("seed", "x")],
)
@pytest.mark.usefixtures("only_ours")
async def test_what_is_not_served_is_refused_by_name(
    client: AsyncOpenAI, engine, param: str, value: object
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        await client.chat.completions.create(model=engine.model, messages=QUESTION, extra_body={param: value})
    assert caught.value.param == param


@pytest.mark.parametrize("body", [b"{", b"\xff\xfe", b"[]", b'"hello"'])
async def test_a_body_that_is_no_json_object_is_refused(http, body: bytes) -> None:
    answer = await http.post(
        "/v1/chat/completions", content=body, headers={"content-type": "application/json"}
    )
    assert 400 <= answer.status_code < 500
    assert answer.json()["error"]["message"]


async def test_a_prompt_longer_than_the_context_is_refused(client: AsyncOpenAI, engine) -> None:
    with pytest.raises(openai.BadRequestError, match="token"):
        await client.chat.completions.create(
            model=engine.model, messages=[{"role": "user", "content": "bicycle " * 20_000}]
        )
