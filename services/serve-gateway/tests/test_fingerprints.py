"""An engine that answers otherwise than the judged model gets no requests for the model."""

from __future__ import annotations

from typing import Any

import pytest
from tunewheel_contracts.formats.bundle import Bundle
from tunewheel_contracts.formats.fingerprint import PROMPTS, NextToken, NextTokens
from tunewheel_serve_gateway.gateway import FIRST_LOOK_SECONDS
from tunewheel_serve_gateway.loading import FOUND_SECONDS
from tunewheel_serve_gateway.upstream import fingerprints
from tunewheel_serve_gateway.upstream.fingerprints import distance
from tunewheel_testing.adapters import BASE, bundle_of
from tunewheel_testing.waiting import until

MEASURED = {" The": -0.5, "A": -1.5, "{": -4.0}
FLOAT32 = {"revision": BASE.revision, "dtype": "float32"}


def print_of(tokens: dict[str, float], name: str) -> NextTokens:
    return NextTokens(
        prompt=name, tokens=tuple(NextToken(text=text, logprob=value) for text, value in tokens.items())
    )


def judged(model: str = "desk-1", **changes: Any) -> Bundle:
    prints = tuple(print_of(MEASURED, name) for name in (*PROMPTS, "of-a-later-release"))
    return bundle_of(model, **({"fingerprint": prints} | changes))


def probes(engine: Any) -> list[dict[str, Any]]:
    return [body for body in engine.asked if body.get("top_logprobs")]


async def status_of(world: Any) -> dict[str, Any]:
    async with world.session.get(f"{world.url}/v1/status") as response:
        return await response.json()


async def test_an_engine_that_answers_as_measured_serves_and_nobody_pays_for_the_question(make_world: Any):
    world = await make_world(limit_requests_per_minute=1)
    world.engine.told_of_base, world.engine.likeliest = (
        FLOAT32,
        {"The": -0.505, "A": -1.49, "{": -4.0, "x": -9},
    )
    world.declare()
    await world.desire(production=("desk-1", 100), judged={"desk-1": judged()})
    await world.serving(production="desk-1")
    [route] = (await status_of(world))["projects"]["desk"]["routes"]
    assert (route["judged"], route["unknown"]) == (True, [])
    asked = probes(world.engine)
    assert [body["messages"] for body in asked] == [list(messages) for messages in PROMPTS.values()]
    assert {(body["model"], body["max_tokens"], body["temperature"]) for body in asked} == {("desk-1", 1, 0)}
    await world.said()
    assert len(await world.completions(1)) == 1
    assert len(probes(world.engine)) == len(PROMPTS), "a model is not compared in each pass"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
async def test_an_engine_that_answers_otherwise_is_refused_and_its_replica_goes_on(
    make_world: Any, precision: str
):
    world = await make_world(bases=(BASE.name, BASE.name))
    for engine, wrong in zip(world.engines, (0.4, 0.0), strict=True):
        engine.told_of_base = FLOAT32 | {"dtype": precision}
        engine.likeliest = {text: value - wrong for text, value in MEASURED.items()}
    world.declare()
    await world.desire(production=("desk-1", 100), judged={"desk-1": judged(precision=precision)})
    await world.serving(production="desk-1")
    await until(lambda: world.gateway.reconciler.failures)
    assert await world.said() == "desk-1: hello"
    assert not [body for body in world.engines[0].asked if not body.get("top_logprobs")]
    reason = (await status_of(world))["failed_adapters"]["desk-1"]["reason"]
    assert "answers the prompt 'question' otherwise than the model that was judged" in reason
    assert "differ by 0.40" in reason
    await until(lambda: "desk-1" not in world.engines[0].adapters, "the wrong model is unloaded")
    world.engines[0].likeliest = MEASURED
    await until(lambda: not world.gateway.reconciler.failures, "the engine that was mended is used again")


async def test_a_champion_is_stood_in_for_and_a_candidates_share_fails(make_world: Any):
    world = await make_world()
    world.engine.likeliest = {"Bonjour": -0.1, "Le": -2.0}
    world.declare()
    bundles = {"desk-1": judged(), "desk-2": judged("desk-2")}
    await world.desire(production=("desk-1", 100), stand_ins=("desk-0",), judged=bundles)
    await world.serving(production="desk-0")
    await world.desire(production=("desk-0", 0), canary=("desk-2", 100), judged=bundles)
    await until(lambda: world.gateway.table.projects["desk"].refused)
    assert await world.said(user="u-1") == "desk-0: hello"
    failed = next(one for one in await world.completions(2) if one.model_id == "desk-2")
    assert "cannot be served: answers the prompt" in str(failed.error)


async def test_an_engine_without_log_probabilities_serves_and_is_said_to(make_world: Any):
    world = await make_world()
    world.engine.told_of_base, world.engine.no_logprobs = FLOAT32, 400
    world.declare()
    await world.desire(production=("desk-1", 100), judged={"desk-1": judged()})
    await world.serving(production="desk-1")
    [route] = (await status_of(world))["projects"]["desk"]["routes"]
    assert (route["judged"], route["unknown"]) == (True, ["fingerprint"])


async def test_a_queue_holds_up_a_load_for_the_time_limit_alone(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fingerprints, "PROBE_SECONDS", 0.2)
    monkeypatch.setattr(fingerprints, "SOON_SECONDS", 0.2)
    world = await make_world()
    world.engine.likeliest = {"Bonjour": -0.1}
    world.engine.gate.clear()
    world.declare()
    await world.desire(production=("desk-1", 100), stand_ins=("base-0",), judged={"desk-1": judged()})
    await world.serving(production="desk-1")
    assert "fingerprint" in (await status_of(world))["projects"]["desk"]["routes"][0]["unknown"]
    world.engine.gate.set()
    await world.serving(production="base-0")


async def test_a_difference_stands_while_the_engine_does_not_answer(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fingerprints, "SOON_SECONDS", 0.1)
    world = await make_world()
    world.engine.likeliest = {"Bonjour": -0.1, "Le": -2.0}
    world.declare()
    await world.desire(production=("desk-1", 100), stand_ins=("base-0",), judged={"desk-1": judged()})
    await world.serving(production="base-0")
    await until(lambda: world.gateway.reconciler.failures)
    world.engine.no_logprobs = 400
    before = len(world.engine.loads)
    await until(lambda: len(world.engine.loads) > before + 1)
    await world.serving(production="base-0")
    world.engine.no_logprobs, world.engine.likeliest = 0, MEASURED
    await world.serving(production="desk-1")


async def test_a_model_that_is_found_loaded_is_compared_before_it_answers(make_world: Any):
    first = await make_world()
    first.engine.likeliest = MEASURED
    first.declare()
    await first.desire(production=("desk-1", 100), judged={"desk-1": judged()})
    await first.serving(production="desk-1")
    first.engine.likeliest = {"Bonjour": -0.1}
    second = await make_world(beside=first, log=first.log)
    assert second.gateway.table.projects["desk"].production is None
    async with await second.chat() as response:
        assert response.status == 503


async def test_a_model_is_compared_again_and_is_not_unloaded_meanwhile(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(fingerprints, "AGAIN_SECONDS", 0.1)
    world = await make_world()
    world.engine.likeliest = MEASURED
    world.declare()
    await world.desire(production=("desk-1", 100), stand_ins=("base-0",), judged={"desk-1": judged()})
    await world.serving(production="desk-1")
    world.engine.gate.clear()
    before = len(probes(world.engine))
    await until(lambda: len(probes(world.engine)) > before)
    await world.desire(production=("desk-3", 100))
    await world.serving(production="desk-3")
    assert "desk-1" in world.engine.adapters
    world.engine.gate.set()
    await until(lambda: "desk-1" not in world.engine.adapters)


async def test_a_bundle_of_an_earlier_release_is_served_as_before(make_world: Any):
    world = await make_world()
    world.engine.told_of_base, world.engine.likeliest = FLOAT32, {"Bonjour": -0.1}
    world.declare()
    await world.desire(production=("desk-1", 100), judged={"desk-1": bundle_of()})
    await world.serving(production="desk-1")
    [route] = (await status_of(world))["projects"]["desk"]["routes"]
    assert (route["unknown"], probes(world.engine)) == ([], [])


def test_the_distance_is_that_of_equal_tokens():
    recorded = print_of(MEASURED, "question")
    assert distance(recorded, MEASURED) == 0
    assert distance(recorded, {"The": -0.5, "A ": -1.5, "{": -4.0, "B": -7.0}) == 0, "white space is ignored"
    off = distance(recorded, {" The": -0.8, "A": -1.9, "{": -4.0})
    assert off == pytest.approx(((0.3**2 + 0.4**2) / 3) ** 0.5)
    missing = distance(recorded, {" The": -0.5, "A": -1.5, "B": -5.0})
    assert missing == pytest.approx((1 / 4) ** 0.5), "not listed: at most as likely as the last of the list"
    assert distance(recorded, {"B": -0.2, "C": -3.0}) > 1.0
    assert distance(print_of({"\ufffd": -0.1, " ": -3.0}, "question"), {"x": -1.0}) == 0.0


def test_time_limits_leave_the_first_look_its_time():
    assert FOUND_SECONDS < FIRST_LOOK_SECONDS
