"""What was judged is what serves: prompt, decoding and limit by default, and no other base or precision."""

from __future__ import annotations

from typing import Any

import pytest
from structlog import make_filtering_bound_logger, wrap_logger
from structlog.testing import LogCapture
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_serve_gateway import loading
from tunewheel_serve_gateway.chat_request import decoding_parameters
from tunewheel_serve_gateway.upstream.bases import (
    EngineBase,
    EngineIdentity,
    UnfitEngine,
    identity_of,
    identity_of_info,
)
from tunewheel_testing.adapters import BASE, adapter_of, bundle_of
from tunewheel_testing.waiting import until


async def status_of(world: Any) -> dict[str, Any]:
    async with world.session.get(f"{world.url}/v1/status") as response:
        return await response.json()


async def test_a_judged_route_serves_its_prompt_its_decoding_and_its_limit(make_world: Any):
    world = await make_world()
    world.declare(prompt="A prompt that nobody judged.")
    decoding = Decoding(temperature=0.3, top_p=0.9, repetition_penalty=1.1, seed=7)
    await world.desire(production=("desk-1", 100), judged={"desk-1": bundle_of(decoding=decoding)})
    await world.serving(production="desk-1")
    await world.said()
    asked = world.engine.asked[-1]
    assert asked["messages"][0] == {"role": "system", "content": "The prompt of desk-1."}
    told = {
        name: asked[name] for name in ("temperature", "top_p", "repetition_penalty", "seed", "max_tokens")
    }
    assert told == {
        "temperature": 0.3, "top_p": 0.9, "repetition_penalty": 1.1, "seed": 7, "max_tokens": 33
    }  # fmt: skip
    [route] = (await status_of(world))["projects"]["desk"]["routes"]
    assert route["judged"] is True
    assert route["bundle"] == bundle_of(decoding=decoding).sha256
    assert route["unknown"] == ["revision", "precision"], "the engine says nothing of itself"


async def test_a_client_may_ask_for_another_way_and_for_fewer_tokens(make_world: Any):
    world = await make_world()
    world.declare()
    await world.desire(production=("desk-1", 100), judged={"desk-1": bundle_of()})
    await world.serving(production="desk-1")
    await world.said(temperature=0.9, top_p=0.5, seed=3, max_tokens=4)
    asked = world.engine.asked[-1]
    assert (asked["temperature"], asked["top_p"], asked["seed"], asked["max_tokens"]) == (0.9, 0.5, 3, 4)
    async with await world.chat(max_tokens=100_000) as response:
        assert response.status == 400
    await world.said(stream=False)
    assert world.engine.asked[-1]["temperature"] == 0


async def test_a_route_that_nobody_judged_is_served_as_before_and_said_to_be(make_world: Any):
    world = await make_world()
    world.declare(prompt="Newly declared.")
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    await world.said()
    asked = world.engine.asked[-1]
    assert asked["messages"][0]["content"] == "Newly declared."
    assert "temperature" not in asked
    [route] = (await status_of(world))["projects"]["desk"]["routes"]
    assert (route["judged"], route["bundle"], route["unknown"]) == (False, None, [])


async def test_a_declared_prompt_goes_live_with_the_version_that_was_judged_with_it(make_world: Any):
    world = await make_world()
    world.declare(prompt="Old.")
    old, new = bundle_of(system_prompt="Old."), bundle_of("desk-2", system_prompt="New.")
    await world.desire(production=("desk-1", 100), judged={"desk-1": old})
    await world.serving(production="desk-1")
    world.declare(prompt="New.")
    await world.said()
    assert world.engine.asked[-1]["messages"][0]["content"] == "Old."
    await world.desire(
        production=("desk-1", 50), canary=("desk-2", 50), judged={"desk-1": old, "desk-2": new}
    )
    await world.serving(production="desk-1", canary="desk-2")
    for model, prompt in (("desk-1", "Old."), ("desk-2", "New.")):
        await world.said(model=model)
        assert world.engine.asked[-1]["messages"][0]["content"] == prompt


async def test_a_shadow_answers_as_it_was_judged(make_world: Any):
    world = await make_world()
    world.declare()
    judged = {"desk-2": bundle_of("desk-2", decoding=Decoding(temperature=0.4))}
    await world.desire(production=("desk-1", 100), shadow=("desk-2", 100), judged=judged)
    await world.serving(production="desk-1", shadow="desk-2")
    await world.said()
    await until(lambda: [asked for asked in world.engine.asked if asked["model"] == "desk-2"])
    copied = next(asked for asked in world.engine.asked if asked["model"] == "desk-2")
    assert copied["messages"][0]["content"] == "The prompt of desk-2."
    assert (copied["temperature"], copied["max_tokens"]) == (0.4, 33)


OTHER = [
    ({"revision": "sha256:1", "dtype": "float32"}, "and the engine serves sha256:1"),
    (
        {"revision": BASE.revision, "dtype": "bfloat16"},
        "judged in float32, and the engine computes in bfloat16",
    ),
]


@pytest.mark.parametrize(("told", "reason"), OTHER)
async def test_another_engine_than_was_judged_on_is_refused_and_a_champion_of_before_answers(
    make_world: Any, monkeypatch: pytest.MonkeyPatch, told: dict[str, str], reason: str
):
    logged = LogCapture()
    logger = wrap_logger(None, [logged], wrapper_class=make_filtering_bound_logger(0))
    monkeypatch.setattr(loading, "log", logger)
    world = await make_world()
    world.engine.told_of_base = told
    world.declare()
    there = BaseModelRef(name=BASE.name, revision=told["revision"])
    judged = {"desk-1": bundle_of(), "desk-0": bundle_of("desk-0", base=there, precision=told["dtype"])}
    await world.desire(production=("desk-1", 100), stand_ins=("desk-0",), judged=judged)
    await world.serving(production="desk-0")
    assert "desk-1" not in world.engine.loads
    status = await status_of(world)
    assert reason in status["failed_adapters"]["desk-1"]["reason"]
    assert status["projects"]["desk"]["waiting_for"] == "desk-1"
    assert any(reason in str(line.get("reason")) for line in logged.entries)


async def test_an_engine_that_came_back_in_another_precision_is_served_by_no_more(make_world: Any):
    world = await make_world()
    world.engine.told_of_base = {"revision": BASE.revision, "dtype": "float32"}
    world.declare()
    await world.desire(production=("desk-1", 100), stand_ins=("base-0",), judged={"desk-1": bundle_of()})
    await world.serving(production="desk-1")
    assert (await status_of(world))["projects"]["desk"]["routes"][0]["unknown"] == []
    world.engine.told_of_base = {"revision": BASE.revision, "dtype": "bfloat16"}
    await world.serving(production="base-0")
    world.engine.told_of_base = {"revision": BASE.revision, "dtype": "float32"}
    await world.serving(production="desk-1")


async def test_if_no_model_may_answer_the_client_gets_the_reason(make_world: Any):
    """The champion and the one before it were both judged in another precision than the engine's of today."""
    world = await make_world()
    world.engine.told_of_base = {"revision": BASE.revision, "dtype": "bfloat16"}
    world.declare()
    judged = {"desk-1": bundle_of(), "desk-0": bundle_of("desk-0")}
    await world.desire(production=("desk-1", 100), stand_ins=("desk-0",), judged=judged)
    await until(lambda: world.gateway.table.projects["desk"].refusal)
    async with await world.chat() as response:
        told = await response.json()
        assert (response.status, response.headers["retry-after"]) == (503, "60")
    assert (
        "desk-1 cannot be served, and no model stands in: was judged in float32" in told["error"]["message"]
    )
    world.engine.told_of_base = {"revision": BASE.revision, "dtype": "float32"}
    await world.serving(production="desk-1")
    assert world.gateway.table.projects["desk"].refusal is None


@pytest.mark.parametrize("role", ["canary", "shadow"])
async def test_a_candidate_that_cannot_be_served_fails_its_rollout_with_the_reason(
    make_world: Any, role: str
):
    """Who answers for it is not disturbed; its share of their traffic counts as failed."""
    world = await make_world()
    world.engine.told_of_base = {"revision": BASE.revision, "dtype": "bfloat16"}
    world.declare()
    shares: dict[str, Any] = {
        "production": ("desk-1", 0 if role == "canary" else 100), role: ("desk-2", 100)
    }  # fmt: skip
    await world.desire(**shares, judged={"desk-2": bundle_of("desk-2")})
    await world.serving(production="desk-1")
    await until(lambda: world.gateway.table.projects["desk"].refused)
    assert await world.said(user="u-1") == "desk-1: hello"
    done = {one.model_id: one for one in await world.completions(2)}
    failed = done["desk-2"]
    assert failed.role.value == role
    assert not failed.pinned
    assert "cannot be served: was judged in float32, and the engine computes in bfloat16" in str(failed.error)
    assert failed.customer == "u-1"
    assert failed.messages == (), "an erasure by the answer's id finds them with what was answered"
    assert failed.shadow_of == (done["desk-1"].completion_id if role == "shadow" else None)
    assert await world.said(model="desk-1") == "desk-1: hello"
    assert len(await world.completions(3)) == 3, "a request that is pinned is no part of a rollout"


@pytest.mark.parametrize(
    ("status", "enough", "is_final"), [(400, 2, True), (500, 2, True), (503, 2, False), (500, 10, False)]
)
async def test_a_candidate_that_an_engine_cannot_load_for_long_fails_its_rollout(
    make_world: Any, monkeypatch: pytest.MonkeyPatch, status: int, enough: int, is_final: bool
):
    """vLLM answers 500 where others answer 400. 503 says that the engine is away, not that it cannot."""
    monkeypatch.setattr(loading, "REFUSED_ATTEMPTS", enough)
    world = await make_world()
    world.engine.refuse_load_of, world.engine.refusal = {"desk-2"}, status
    world.declare()
    await world.desire(production=("desk-1", 50), canary=("desk-2", 50))
    reconciler = world.gateway.reconciler
    await until(lambda: (one := reconciler.failures.get("desk-2")) is not None and one.attempts >= 2)
    failure = reconciler.failures["desk-2"]
    assert failure.final == is_final
    assert "another base model" in failure.reason
    if is_final:
        await until(lambda: world.gateway.table.projects["desk"].refused)


ADAPTER = adapter_of("desk-1")


def test_an_engine_is_not_refused_for_facts_that_it_does_not_report():
    EngineIdentity().check(ADAPTER, bundle_of())
    some = EngineIdentity({BASE.name: EngineBase(revision=BASE.revision)})
    some.check(ADAPTER, bundle_of())
    assert some.unknown(bundle_of()) == ["precision"]
    EngineIdentity({BASE.name: EngineBase(revision="another")}).check(ADAPTER, None)


OTHER_BASES: list[list[Any]] = [
    [{"id": "org/Tiny-Base-2", "root": "org/Tiny-Base-2", "parent": None}],
    [{"id": "org/Other"}],
    [{"id": "org/Other", "revision": BASE.revision, "dtype": "float32"}],
    [{"id": "/srv/models/tiny", "root": "/srv/models/tiny", "parent": None}],
    [{"id": "desk-9", "root": "/srv/models/desk-9"}, {"id": "desk-1", "parent": "desk-9"}, "x", {"a": 1}],
]


@pytest.mark.parametrize("listed", OTHER_BASES)
def test_an_engine_that_names_other_bases_is_refused_whatever_else_it_reports(listed: list[Any]):
    for judged in (bundle_of(), None):
        with pytest.raises(UnfitEngine, match="was trained on org/Tiny-Base, and the engine serves"):
            identity_of(listed).check(ADAPTER, judged)


def test_a_base_may_have_a_served_name_and_the_directory_of_a_base_any():
    served = identity_of([{"id": "prod", "root": BASE.name, "parent": None}])
    assert (served.name_of(BASE.name), served.name_of("org/Other")) == ("prod", None)
    served.check(ADAPTER, bundle_of())
    for name in (BASE.name, "/srv/models/Tiny-Base"):
        named = identity_of([{"id": name, "root": "/srv/models/Tiny-Base", "parent": None}])
        named.check(ADAPTER, bundle_of())
        assert named.name_of(BASE.name) == name
    identity_of([{"id": "desk-1", "root": "/adapters/desk-1", "parent": "x"}]).check(ADAPTER, bundle_of())


def test_a_tgi_that_names_a_directory_is_held_to_the_precision_alone():
    local = identity_of_info({"model_id": "/data/model", "model_sha": None, "model_dtype": "torch.float32"})
    local.check(ADAPTER, bundle_of())
    assert local.unknown(bundle_of()) == ["revision"]
    with pytest.raises(UnfitEngine, match="judged in bfloat16, and the engine computes in float32"):
        local.check(ADAPTER, bundle_of(precision="bfloat16"))
    with pytest.raises(UnfitEngine, match="the engine serves /data/model"):
        identity_of_info({"model_id": "/data/model", "model_sha": "sha256:1"}).check(ADAPTER, bundle_of())


def test_tgi_says_it_at_info():
    told = {"model_id": BASE.name, "model_sha": None, "model_dtype": "torch.bfloat16"}
    assert identity_of_info(told).bases == {BASE.name: EngineBase(precision="bfloat16")}
    assert identity_of_info({"model_id": BASE.name}).bases == {BASE.name: EngineBase()}
    assert identity_of_info({}) == EngineIdentity()


def test_decoding_parameters_without_effect_are_not_sent():
    assert decoding_parameters(bundle_of()) == {"temperature": 0.0}
