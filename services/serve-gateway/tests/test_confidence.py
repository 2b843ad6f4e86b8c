"""Production's answers are measured for their confidence, and no client notices."""

from __future__ import annotations

import re
from math import inf, nan
from typing import Any

import pytest
from tunewheel_contracts.formats.confidence import Confidence
from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.ids import CompletionIds, is_drawn
from tunewheel_testing import engine_answers
from tunewheel_testing.waiting import until

ANSWER = "desk-1: hello there"
OF_WORDS = Confidence(tokens=3, total=-1.5, least=-0.5)
STREAMED = {"stream": True, "stream_options": {"include_usage": True}}
SHAPES: Any = pytest.mark.parametrize("shape", [{}, STREAMED], ids=["whole", "streamed"])


async def serving(make_world: Any, **settings: Any) -> Any:
    world = await make_world(**settings)
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    return world


async def told(world: Any, **body: Any) -> bytes:
    """Return the bytes of an answer, without the completion's id."""
    async with await world.chat("hello there", **body) as response:
        assert response.status == 200
        return re.sub(rb"chatcmpl-[0-9a-f]+", b"an-id", await response.read())


@SHAPES
async def test_the_client_gets_the_same_bytes_whether_or_not_its_answer_is_measured(
    make_world: Any, shape: dict[str, Any]
):
    world = await serving(make_world, confidence_share=1.0)
    measured = await told(world, **shape)
    assert world.engine.asked[-1]["logprobs"] is True
    plain = await serving(make_world)
    assert await told(plain, **shape) == measured
    assert "logprobs" not in plain.engine.asked[-1]
    assert b'"token"' not in measured
    (event,) = await world.completions()
    assert (event.output, event.confidence) == (ANSWER, OF_WORDS)
    (other,) = await plain.completions()
    assert other.confidence is None


@SHAPES
async def test_a_client_that_asks_for_log_probabilities_gets_them(make_world: Any, shape: dict[str, Any]):
    world, plain = await serving(make_world, confidence_share=1.0), await serving(make_world)
    asked = {"logprobs": True, **shape}
    assert (await told(world, **asked)).count(b'"token"') == 3
    assert await told(plain, **asked) == await told(world, **asked)
    events = await world.completions(2)
    assert [event.confidence for event in events] == [OF_WORDS, OF_WORDS]


@pytest.mark.parametrize("status", [400, 422, 500])
@SHAPES
async def test_no_request_fails_for_an_engine_without_log_probabilities(
    make_world: Any, shape: dict[str, Any], status: int
):
    world = await serving(make_world, confidence_share=1.0)
    world.engine.no_logprobs = status
    first = await told(world, **shape)
    assert await told(world, **shape) == first
    assert [body.get("logprobs") for body in world.engine.asked] == [True, None, None]
    assert [event.confidence for event in await world.completions(2)] == [None, None]
    assert [event.error for event in await world.completions(2)] == [None, None]


async def test_an_engine_that_refuses_log_probabilities_spoils_no_other_ones_sample(make_world: Any):
    world = await make_world(bases=("org/Tiny-Base",) * 2, confidence_share=1.0, reconcile_seconds=3600)
    world.declare()
    await world.desire(production=("desk-1", 100))
    await until(lambda: all(e.ready >= {"desk-1"} for e in world.gateway.pool.endpoints))
    world.engine.no_logprobs = 400
    for text in (*world.texts(0, 2), *world.texts(1, 3)):
        await world.said(text)
    asked = [[body.get("logprobs") for body in engine.asked] for engine in world.engines]
    assert (asked[0].count(True), asked[1]) == (1, [True] * 3)
    measured = [event.confidence is not None for event in await world.completions(5)]
    assert sorted(measured) == [False, False, True, True, True]


@pytest.mark.parametrize("value", [nan, -inf])
@SHAPES
async def test_a_log_probability_that_is_no_number_costs_the_figure_and_not_the_answer(
    make_world: Any, shape: dict[str, Any], value: float, monkeypatch: pytest.MonkeyPatch
):
    plain = await told(await serving(make_world), **shape)
    world = await serving(make_world, confidence_share=1.0)
    token = {"token": "x", "logprob": value, "bytes": None, "top_logprobs": []}
    monkeypatch.setattr(engine_answers, "_token", lambda text: token)
    assert await told(world, **shape) == plain
    assert [body.get("logprobs") for body in world.engine.asked] == [True]
    (event,) = await world.completions()
    assert (event.output, event.error, event.confidence) == (ANSWER, None, None)


async def test_a_request_that_is_wrong_by_itself_leaves_the_sample_as_it_is(make_world: Any):
    world = await serving(make_world, confidence_share=1.0)
    refusal = (400, {"error": {"message": "no such thing"}}, {})
    world.engine.first["hello there"] = [refusal, refusal]
    assert (await world.chat("hello there")).status == 400
    await told(world)
    assert world.engine.asked[-1]["logprobs"] is True


async def test_a_full_engine_is_not_asked_twice(make_world: Any):
    world = await serving(make_world, confidence_share=1.0)
    world.engine.fail_with = (429, {"error": {"message": "full"}}, {})
    assert (await world.chat("hello there")).status == 429
    assert len(world.engine.asked) == 1


@pytest.mark.parametrize("body", [{"n": 2}, {"model": "desk/champion"}, {"model": "desk/base"}])
async def test_only_single_answers_of_production_are_measured(make_world: Any, body: dict[str, Any]):
    world = await serving(make_world, confidence_share=1.0)
    await told(world, **body)
    assert "logprobs" not in world.engine.asked[-1]


async def test_an_answer_that_was_cut_off_has_no_confidence(make_world: Any):
    world = await serving(make_world, confidence_share=1.0)
    world.engine.break_off_after = 2
    async with await world.chat("hello there", stream=True) as response:
        await response.read()
    (event,) = await world.completions()
    assert (event.error is None, event.confidence) == (False, None)


async def test_the_label_of_an_answer_has_a_confidence_of_its_own(make_world: Any):
    world = await make_world(confidence_share=1.0)
    world.declare(task={"label_field": "said"})
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    await world.said("hi", response_format={"type": "json_object"})
    await until(lambda: world.broker.of("inference.completed"), "the completion")
    (event,) = await world.completions()
    assert event.output == '{"said": "hi"}'
    assert (event.confidence.tokens, event.confidence.label) == (2, -0.5)


@pytest.mark.parametrize(
    "logprobs",
    [None, [], {}, {"content": None}, {"content": "abc"}, {"content": [None, 3, {}, {"logprob": "x"}]}],
)
def test_log_probabilities_of_another_shape_are_left_out(logprobs: Any):
    exchange = Exchange("desk", "c-1", "desk-1", "production", (), is_sampled=True, shows_logprobs=False)  # type: ignore[arg-type]
    answer = {"choices": [{"message": {"content": "hi"}, "logprobs": logprobs, "index": 0}]}
    exchange.take(answer)
    assert (exchange.scored, exchange.output) == ([], "hi")
    assert answer["choices"][0]["logprobs"] is None


def test_a_smaller_sample_is_a_part_of_a_larger_one(tmp_path: Any):
    ids = CompletionIds("a" * 16, tmp_path)
    made = [ids.new("desk") for _ in range(4_000)]
    small, large = ({one for one in made if is_drawn(one, share)} for share in (0.05, 0.5))
    assert small < large
    assert 100 < len(small) < 320
    assert not any(is_drawn(one, 0.0) for one in made)
    assert all(is_drawn(one, 1.0) for one in made)
