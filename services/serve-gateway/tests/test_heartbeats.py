"""A stream that nothing comes from for long: comments keep it open, and no client minds them."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest
from tunewheel_testing.waiting import until

HELLO: Any = [{"role": "user", "content": "hello there"}]


@pytest.fixture
async def waiting(make_world: Any) -> Any:
    """A gateway whose heart beats fast, before an engine that has not begun."""
    world = await make_world(heartbeat_seconds=0.01)
    world.declare()
    await world.serving(production="org/Tiny-Base")
    world.engine.gate.clear()
    world.engine.gate_at = 0
    return world


@pytest.mark.parametrize("held", [0, 1])
async def test_a_silence_is_bridged_by_comments(waiting: Any, held: int):
    waiting.engine.gate_at = held
    async with await waiting.chat("hello there", stream=True) as response:
        while held and not (await response.content.readuntil(b"\n\n")).startswith(b"data: "):
            pass  # on a busy machine a comment may come before the first piece
        for _ in range(3):
            assert await response.content.readuntil(b"\n\n") == b": still at work\n\n"
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["x-tunewheel-model"] == "org/Tiny-Base"
        waiting.engine.gate.set()
        rest = await response.text()
    assert rest.rstrip().endswith("data: [DONE]")
    (event,) = await waiting.completions()
    assert event.output == "org/Tiny-Base: hello there"


async def test_the_python_client_takes_no_notice(waiting: Any):
    async with openai.AsyncOpenAI(base_url=f"{waiting.url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(model="desk", messages=HELLO, stream=True)
        waiting.engine.gate.set()  # it had an answer already: a heartbeat's
        chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == "org/Tiny-Base: hello there"


async def test_a_failure_after_a_heartbeat_is_sent_as_an_event(waiting: Any):
    waiting.engine.silent.add("/v1/chat/completions")
    async with openai.AsyncOpenAI(base_url=f"{waiting.url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(model="desk", messages=HELLO, stream=True)
        waiting.engine.fail_with = (500, {"error": {"message": "boom"}}, {})
        waiting.engine.silent.clear()
        with pytest.raises(openai.APIError, match="the engine failed") as caught:
            [chunk async for chunk in stream]
    assert (caught.value.code, len(waiting.engine.asked)) == ("engine_error", 1)
    (event,) = await waiting.completions()
    assert event.finish_reason == "error"


async def test_an_unexpected_error_after_a_heartbeat_is_sent_too(
    waiting: Any, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: Any) -> Any:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("tunewheel_serve_gateway.completions.exchange.Exchange.take_chunk", broken)
    async with openai.AsyncOpenAI(base_url=f"{waiting.url}/v1", api_key="none") as client:
        stream = await client.chat.completions.create(model="desk", messages=HELLO, stream=True)
        waiting.engine.gate.set()
        with pytest.raises(openai.APIError, match="the gateway failed") as caught:
            [chunk async for chunk in stream]
    assert "secret" not in str(caught.value.body)


async def test_a_whole_answer_has_no_heartbeat(waiting: Any):
    asking = asyncio.create_task(waiting.said("hello there"))
    await until(lambda: waiting.engine.running == 1)
    await asyncio.sleep(0.02)  # longer than a stream would be silent
    waiting.engine.gate.set()
    assert await asking == "org/Tiny-Base: hello there"


async def test_a_refusal_before_the_first_heartbeat_keeps_its_status(world: Any):
    async with await world.chat(model="nobody", stream=True) as response:
        assert response.status == 404


async def test_a_client_that_leaves_between_heartbeats_frees_the_engine(waiting: Any):
    response = await waiting.chat("hello there", stream=True)
    await response.content.readuntil(b"\n\n")
    response.close()
    await until(lambda: waiting.engine.running == 0, "the engine at rest")
    await until(lambda: waiting.gateway.metrics.value("completions.disconnected") == 1)
