"""An answer of which the model is not sure enough is not sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from math import exp
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI
from tunewheel_contracts.formats.confidence import Certainty
from tunewheel_serve_gateway.abstaining import IN_CHUNK, REFUSAL
from tunewheel_testing.adapters import bundle_of
from tunewheel_testing.waiting import until

SURE = exp(-0.5)
"""What the fake engine's one token of the label says, and a calibration of slope 1 leaves as it is."""
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
SHAPES: Any = pytest.mark.parametrize("shape", [{}, STREAMED], ids=["whole", "streamed"])
JSON = {"type": "json_object"}


async def abstaining(
    make_world: Any,
    *,
    least: float | None,
    abstain: dict[str, Any] | None = None,
    declared: str = "said",
    **settings: Any,
) -> Any:
    """Return a world whose production is judged to need a confidence of ``least`` in the label ``said``."""
    world = await make_world(**settings)
    serving = {} if abstain is None else {"serving": {"abstain": abstain}}
    world.declare(task={"label_field": declared}, **serving)
    sure = Certainty(intercept=0.0, slope=1.0, least=least, label_field="said")
    bundle = bundle_of(certainty=sure)
    await world.desire(production=("desk-1", 100), judged={"desk-1": bundle})
    await world.serving(production="desk-1")
    return world


async def asked(world: Any, text: str = "hi", **body: Any) -> tuple[Any, str | None, str | None, Any]:
    """Return headers, content and refusal of an answer, and the confidence in a stream's last chunk."""
    async with await world.chat(text, **{"response_format": JSON, **body}) as response:
        assert response.status == 200, await response.text()
        if not body.get("stream"):
            message = (await response.json())["choices"][0]["message"]
            return response.headers, message["content"], message.get("refusal"), None
        raw = await response.text()
    chunks = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
    deltas = [one["choices"][0]["delta"] for one in chunks if one.get("choices")]
    content = "".join(delta.get("content") or "" for delta in deltas)
    refusal = "".join(delta.get("refusal") or "" for delta in deltas)
    ends = [one for one in chunks if one.get("choices") and one["choices"][0]["finish_reason"]]
    assert len(ends) == 1
    assert chunks[-1]["usage"]["completion_tokens"] > 0
    return response.headers, content or None, refusal or None, ends[0].get(IN_CHUNK)


@SHAPES
@pytest.mark.parametrize(("least", "is_sent"), [(SURE - 0.01, True), (SURE + 0.01, False)])
async def test_an_answer_is_sent_if_the_model_is_sure_enough(
    make_world: Any, shape: dict[str, Any], least: float, is_sent: bool
):
    world = await abstaining(make_world, least=least, abstain={"risk": 0.05})
    headers, content, refusal, in_chunk = await asked(world, **shape)
    assert headers["x-tunewheel-confidence"] == f"{SURE:.3f}"
    assert headers.get("x-tunewheel-abstained") == (None if is_sent else "true")
    assert in_chunk == (round(SURE, 3) if shape else None)
    assert (content, refusal) == (('{"said": "hi"}', None) if is_sent else (None, REFUSAL))
    (event,) = await world.completions()
    assert event.abstained is not is_sent
    assert event.output == ('{"said": "hi"}' if is_sent else "")
    assert (event.confidence.label, event.finish_reason, event.error) == (-0.5, "stop", None)
    assert event.certainty == pytest.approx(SURE)
    assert event.violations == ()


@SHAPES
async def test_a_label_that_is_declared_later_does_not_withhold_every_answer(
    make_world: Any, shape: dict[str, Any]
):
    world = await abstaining(make_world, least=SURE - 0.01, abstain={"risk": 0.05}, declared="other")
    _, content, refusal, _ = await asked(world, **shape)
    assert (content, refusal) == ('{"said": "hi"}', None)


@SHAPES
async def test_a_task_whose_spec_no_longer_abstains_gets_every_answer(make_world: Any, shape: dict[str, Any]):
    world = await abstaining(make_world, least=0.99)
    headers, content, *_ = await asked(world, **shape)
    assert content == '{"said": "hi"}'
    assert "x-tunewheel-confidence" not in headers
    (event,) = await world.completions()
    assert (event.abstained, event.certainty) == (False, None)


async def test_a_sampled_answer_tells_its_confidence(make_world: Any):
    world = await abstaining(make_world, least=None, confidence_share=1.0)
    headers, content, *_ = await asked(world)
    assert (headers["x-tunewheel-confidence"], content) == (f"{SURE:.3f}", '{"said": "hi"}')


@pytest.mark.parametrize(
    "body",
    [{"n": 2}, {"messages": [{"role": "system", "content": "Sing."}, {"role": "user", "content": "hi"}]}],
)
async def test_what_was_not_judged_is_not_held(make_world: Any, body: dict[str, Any]):
    world = await abstaining(make_world, least=0.99, abstain={"risk": 0.05})
    assert (await asked(world, **body))[1] == '{"said": "hi"}'
    assert "logprobs" not in world.engine.asked[-1]


@SHAPES
@pytest.mark.parametrize("text", ["two words", ""])
async def test_an_answer_without_a_label_is_never_sent(make_world: Any, shape: dict[str, Any], text: str):
    world = await abstaining(make_world, least=0.01, abstain={"risk": 0.05})
    headers, content, refusal, _ = await asked(world, text or "x", response_format={"type": "text"}, **shape)
    assert (content, refusal) == (None, REFUSAL)
    assert headers["x-tunewheel-confidence"] == "0.000"


@SHAPES
async def test_nothing_is_sent_where_the_engine_does_not_say_how_sure_the_model_is(
    make_world: Any, shape: dict[str, Any]
):
    world = await abstaining(make_world, least=0.01, abstain={"risk": 0.05})
    world.engine.no_logprobs = 400
    for _ in range(2):
        headers, content, refusal, _ = await asked(world, **shape)
        assert (content, refusal) == (None, REFUSAL)
        assert "x-tunewheel-confidence" not in headers
        assert headers["x-tunewheel-abstained"] == "true"
    world.engine.no_logprobs = 0
    assert (await asked(world, **shape))[1] == '{"said": "hi"}'  # nobody waits an hour for it


async def test_a_held_stream_that_breaks_off_is_an_error_and_no_answer(make_world: Any):
    world = await abstaining(make_world, least=0.01, abstain={"risk": 0.05})
    world.engine.break_off_after = 1
    async with await world.chat("hi", response_format=JSON, stream=True) as response:
        assert response.status == 502
    (event,) = await world.completions()
    assert event.error is not None


async def test_a_client_that_asks_for_log_probabilities_learns_nothing_of_a_withheld_answer(make_world: Any):
    world = await abstaining(make_world, least=0.99, abstain={"risk": 0.05})
    async with await world.chat("hi", response_format=JSON, logprobs=True) as response:
        assert '"token"' not in await response.text()


async def test_withheld_answers_are_not_copied_to_a_shadow(make_world: Any):
    world = await abstaining(make_world, least=0.99, abstain={"risk": 0.05})
    bundle = bundle_of(certainty=Certainty(intercept=0.0, slope=1.0, least=0.99))
    await world.desire(production=("desk-1", 100), shadow=("desk-2", 100), judged={"desk-1": bundle})
    await world.serving(production="desk-1", shadow="desk-2")
    await asked(world)
    await asked(world, messages=[{"role": "system", "content": "S."}, {"role": "user", "content": "hi"}])
    events = await world.completions(3)
    assert sorted(one.role.value for one in events) == ["production", "production", "shadow"]
    assert len(events) == 3


@pytest.mark.parametrize(
    ("shape", "limit"), [({"stream": True}, 400_000), ({}, 8_000)], ids=["streamed", "whole"]
)
@pytest.mark.parametrize("count", [4, 12])
async def test_more_held_answers_than_memory_is_for_are_told_to_come_again(
    make_world: Any, shape: dict[str, Any], limit: int, count: int
):
    """Each stream of a hundred chunks takes some 200 kB; 33 tokens with log-probabilities count 2,640 B."""
    settings = {"max_in_flight_bytes": limit, "heartbeat_seconds": 0}
    world = await abstaining(make_world, least=0.01, abstain={"risk": 0.05}, **settings)
    world.engine.gate_at = 80
    world.engine.gate.clear()
    text = " ".join(["word"] * 100)
    asking = [asyncio.create_task(world.chat(text, response_format=JSON, **shape)) for _ in range(count)]
    await until(lambda: sum(task.done() for task in asking) >= count - 3)
    assert world.gateway.in_flight._all.bytes <= limit
    world.engine.gate.set()
    answers = await asyncio.gather(*asking)
    statuses = [answer.status for answer in answers]
    assert set(statuses) == {200, 503}
    assert {answer.headers.get("retry-after") for answer in answers if answer.status == 503} == {"2"}
    for answer in answers:
        await answer.read()
    await until(lambda: world.gateway.in_flight._all.bytes == 0)
    assert len(await world.completions(statuses.count(200))) == statuses.count(200)


def _leave(world: Any) -> None:
    world.engine.gate.clear()


def _break_off(world: Any) -> None:
    world.engine.break_off_after = 1
    world.engine.dies = True


def _refuse(world: Any) -> None:
    world.engine.fail_with = (400, {"error": {"message": "no such thing"}}, {})


def _fail_to_log(world: Any) -> None:
    async def keep(exchange: Any) -> None:
        raise OSError("no space left")

    world.gateway.log.keep = keep


def _fail_to_judge(world: Any) -> None:
    async def judge(exchange: Any, target: Any) -> Any:
        raise RuntimeError("cannot be judged")

    object.__setattr__(world.gateway.chat.answering.abstaining, "judge", judge)


@SHAPES
@pytest.mark.parametrize("twice", [False, True], ids=["alone", "beside another"])
@pytest.mark.parametrize(
    "end",
    [None, _leave, _break_off, _refuse, _fail_to_log, _fail_to_judge],
    ids=["answered", "left", "broken off", "refused", "not logged", "not judged"],
)
async def test_memory_of_a_held_answer_is_given_back_however_it_ends(
    make_world: Any, shape: dict[str, Any], end: Any, twice: bool
):
    world = await abstaining(make_world, least=0.01, abstain={"risk": 0.05}, heartbeat_seconds=0)
    if end is not None:
        end(world)
    taken = world.gateway.in_flight
    asking = [
        asyncio.create_task(world.chat(f"hi {one}", response_format=JSON, **shape))
        for one in range(1 + twice)
    ]
    if end is _leave:
        await until(lambda: world.engine.running == len(asking))
        assert taken._all.bytes > 0
        for one in asking:
            one.cancel()
    for one in asking:
        with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
            async with await one as response:
                await response.read()
    await until(lambda: taken._all.requests == 0)
    assert (taken._all.bytes, taken._by_caller) == (0, {})


async def test_openais_client_reads_a_refusal(make_world: Any):
    world = await abstaining(make_world, least=0.99, abstain={"risk": 0.05})
    async with AsyncOpenAI(base_url=f"{world.url}/v1", api_key="none") as client:
        messages: Any = [{"role": "user", "content": "hi"}]
        whole = await client.chat.completions.create(model="desk", messages=messages)
        assert (whole.choices[0].message.content, whole.choices[0].message.refusal) == (None, REFUSAL)
        async with client.chat.completions.stream(model="desk", messages=messages) as stream:
            final = await stream.get_final_completion()
        assert final.choices[0].message.refusal == REFUSAL
        answered = await client.responses.create(model="desk", input="hi")
        assert answered.output[0].content[0].refusal == REFUSAL  # type: ignore[union-attr]
        streamed = await client.responses.create(model="desk", input="hi", stream=True)
        kinds = {event.type: event async for event in streamed}
        assert kinds["response.refusal.done"].refusal == REFUSAL  # type: ignore[union-attr]
        assert "response.output_text.delta" not in kinds
