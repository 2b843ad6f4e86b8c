"""Clients that leave, and more of them than there is room for."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI
from tunewheel_testing.waiting import until

pytestmark = [pytest.mark.e2e, pytest.mark.nightly("models")]

STORY = [{"role": "user", "content": "Tell me a long story about a bicycle."}]
ENDLESS = {"max_tokens": 1500, "temperature": 0, "extra_body": {"ignore_eos": True}}


async def running(http: httpx.AsyncClient, engine: Any) -> float:
    text = (await http.get(f"{engine.health_url}/metrics")).text
    values = re.findall(r"^vllm:num_requests_(?:running|waiting)(?:\{.*\})? (\S+)$", text, re.MULTILINE)
    assert len(values) >= 2
    return sum(float(value) for value in values)


async def test_a_client_that_leaves_its_stream_frees_the_row(client: AsyncOpenAI, http, engine) -> None:
    stream = await client.chat.completions.create(model=engine.model, messages=STORY, stream=True, **ENDLESS)
    seen = 0
    async for _ in stream:
        seen += 1
        if seen == 3:
            break
    assert await running(http, engine) == 1
    await stream.close()
    await until(lambda: is_idle(http, engine))


async def test_a_client_that_leaves_before_its_answer_frees_the_row(
    client: AsyncOpenAI, http, engine
) -> None:
    request = asyncio.create_task(
        client.chat.completions.create(model=engine.model, messages=STORY, **ENDLESS)
    )
    await until(lambda: is_busy(http, engine))
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    await until(lambda: is_idle(http, engine))


async def is_idle(http: httpx.AsyncClient, engine: Any) -> bool:
    return await running(http, engine) == 0


async def is_busy(http: httpx.AsyncClient, engine: Any) -> bool:
    return await running(http, engine) > 0


@pytest.mark.usefixtures("only_ours")
async def test_a_full_queue_says_when_to_come_back(client: AsyncOpenAI, http, engine, expected) -> None:
    info = (await http.get("/info")).json()
    room = info["max_concurrent_requests"]
    requests = [
        asyncio.create_task(client.chat.completions.create(model=engine.model, messages=STORY, **ENDLESS))
        for _ in range(room)
    ]

    async def is_full() -> bool:
        return await running(http, engine) == room

    await until(is_full)
    with pytest.raises(openai.RateLimitError) as caught:
        await client.chat.completions.create(model=engine.model, messages=STORY)
    assert int(caught.value.response.headers["retry-after"]) >= 1
    assert caught.value.code == "rate_limit_exceeded"
    streamed = await http.post("/generate_stream", json={"inputs": "Hello"})
    assert streamed.status_code == 429

    for request in requests:
        request.cancel()
    await asyncio.gather(*requests, return_exceptions=True)
    await until(lambda: is_idle(http, engine))
    answer = await client.chat.completions.create(
        model=engine.model,
        messages=[{"role": "user", "content": "What is the capital of France?"}],
        temperature=0,
        max_tokens=24,
    )
    assert answer.choices[0].message.content == expected["question"]


async def test_many_clients_each_get_their_own_answer(client: AsyncOpenAI, engine) -> None:
    async def count(number: int) -> str:
        answer = await client.completions.create(
            model=engine.model, prompt=f"{number}, {number + 1}, {number + 2},", temperature=0, max_tokens=4
        )
        return answer.choices[0].text

    numbers = [3, 14, 25, 36, 47, 58]
    alone = [await count(number) for number in numbers]
    assert len(set(alone)) == len(numbers)
    assert await asyncio.gather(*(count(number) for number in numbers)) == alone


async def test_health(http, engine) -> None:
    assert (await http.get(f"{engine.health_url}/health")).status_code == 200
