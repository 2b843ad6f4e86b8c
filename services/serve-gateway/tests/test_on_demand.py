"""Versions that no route names, and whole models: asked for by their id."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tunewheel_contracts.events.lifecycle import ModelPromoted, ModelRegistered, Stage
from tunewheel_contracts.formats.methods import TrainMethod
from tunewheel_runtime.store import ObjectStore
from tunewheel_serve_gateway.upstream.bases import (
    EngineBase,
    EngineIdentity,
    identity_of_info,
    whole_model_revision,
)
from tunewheel_serve_gateway.upstream.breaker import Breaker
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.why_not import Failure
from tunewheel_testing.adapters import BASE, bundle_of, put_adapter
from tunewheel_testing.log import wrap
from tunewheel_testing.waiting import until

TWO = (BASE.name, BASE.name)
NOT_YET = Failure(0, 0.0, "")


async def register(world: Any, model_id: str, *, judged: bool = False, **changes: Any) -> None:
    """Have the gateway read that ``model_id`` was registered, and what was judged of it."""
    adapter = await put_adapter(world.store, model_id, **changes)
    world.adapters[model_id] = adapter
    data = ModelRegistered(project="desk", model_id=model_id, kind="adapter", base=BASE, adapter=adapter)
    world.tell(wrap(data))
    if judged:
        passed = ModelPromoted(
            project="desk", model_id=model_id, from_stage=Stage.REGISTERED, to_stage=Stage.EVALUATED,
            cause="1", reason="meets all", bundle=bundle_of(model_id),
        )  # fmt: skip
        world.tell(wrap(passed))


async def refusal(world: Any, model: str) -> tuple[int, str]:
    async with await world.chat(model=model) as response:
        return response.status, (await response.json()).get("error", {}).get("message", "")


async def test_a_version_that_no_route_names_is_loaded_for_whoever_asks_and_answers_as_judged(
    make_world: Any,
):
    world = await make_world(bases=TWO)
    world.declare()
    await register(world, "desk-7", judged=True)
    assert await asyncio.gather(*(world.said(model="desk-7") for _ in range(5))) == ["desk-7: hello"] * 5
    assert [engine.loads for engine in world.engines].count(["desk-7"]) == 1, "by one engine, once"
    asked = next(body for engine in world.engines for body in engine.asked)
    assert asked["messages"][0]["content"] == "The prompt of desk-7."
    assert all((event.pinned, event.model_id) == (True, "desk-7") for event in await world.completions(5))
    await world.gateway.reconciler.reconcile()
    assert sum("desk-7" in engine.adapters for engine in world.engines) == 1, "it stays for the next"


async def test_the_one_asked_for_longest_ago_makes_room_unless_it_answers(make_world: Any):
    world = await make_world(on_demand_adapters=2)
    world.declare()
    for n in (1, 2, 3, 4):
        await register(world, f"desk-{n}")
    for n in (1, 2, 1, 3):
        assert await world.said(model=f"desk-{n}") == f"desk-{n}: hello"
    await until(lambda: set(world.engine.adapters) == {"desk-1", "desk-3"})
    world.engine.gate.clear()
    waiting = [asyncio.create_task(world.said(model=f"desk-{n}")) for n in (1, 3)]
    await until(lambda: world.engine.running == 2)
    status, message = await refusal(world, "desk-4")
    assert (status, "TUNEWHEEL_ON_DEMAND_ADAPTERS" in message) == (503, True)
    world.engine.gate.set()
    await asyncio.gather(*waiting)
    assert await world.said(model="desk-4") == "desk-4: hello"


async def test_models_with_a_route_displace_models_loaded_on_demand(make_world: Any):
    world = await make_world()
    world.engine.slots = 1
    world.declare()
    await register(world, "desk-7")
    await world.said(model="desk-7")
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    assert set(world.engine.adapters) == {"desk-1"}
    status, message = await refusal(world, "desk-7")
    assert (status, "No free lora slots" in message) == (503, True)
    assert await world.said() == "desk-1: hello"


async def test_another_gateways_version_is_left_to_it(make_world: Any):
    world = await make_world()
    world.declare()
    await register(world, "desk-7")
    await world.said(model="desk-7")
    other = await make_world(beside=world, log=world.log[:1])
    await other.gateway.reconciler.reconcile()
    assert "desk-7" in world.engine.adapters


async def test_when_the_engine_of_a_version_is_gone_another_loads_it(make_world: Any):
    world = await make_world(bases=TWO, reconcile_seconds=3600, engine_breaker_failures=1)
    world.declare()
    await register(world, "desk-7")
    await world.said(model="desk-7")
    home = next(engine for engine in world.engines if engine.adapters)
    await home.stop()
    await refusal(world, "desk-7")
    assert await world.said(model="desk-7") == "desk-7: hello"


async def test_unknown_versions_and_those_of_others_are_not_told_of(make_world: Any):
    world = await make_world(on_demand_adapters=0)
    await register(world, "desk-7")
    assert (await refusal(world, "desk-7"))[0] == 404, "nobody declared its project"
    world.declare()
    assert (await refusal(world, "desk-7"))[0] == 503, "none may be loaded"
    assert (await refusal(world, "desk-8"))[0] == 404


@pytest.mark.parametrize("named", ["by id", "by directory", "by files"])
async def test_a_whole_model_is_served_by_an_engine_started_on_it(make_world: Any, named: str):
    world = await make_world(bases=(BASE.name, "x"))
    adapter = await put_adapter(world.store, "desk-9", method=TrainMethod.FULL)
    revision = whole_model_revision(adapter) if named == "by files" else "sha256:1"
    names = {"by id": "desk-9", "by directory": "/srv/models/desk-9", "by files": "/srv/models/some"}
    world.engines[1].base = names[named]
    world.engines[1].told_of_base = {"revision": revision, "dtype": "float32"}
    world.declare()
    world.adapters["desk-9"] = adapter
    judged = {"desk-9": bundle_of("desk-9")}
    await world.desire(production=("desk-9", 100), judged=judged)
    await world.serving(production="desk-9")
    assert await world.said() == f"{names[named]}: hello"
    assert not any(engine.loads for engine in world.engines)
    assert await world.said(model="desk/base") == f"{BASE.name}: hello"


async def test_engines_of_its_base_load_a_whole_model_as_they_load_adapters(make_world: Any):
    world = await make_world(bases=TWO)
    for engine in world.engines:
        engine.told_of_base = {"revision": BASE.revision, "dtype": "float32", "max_whole_models": 2}
    world.declare()
    world.adapters["desk-9"] = await put_adapter(world.store, "desk-9", method=TrainMethod.FULL)
    await world.desire(production=("desk-9", 100), judged={"desk-9": bundle_of("desk-9")})
    await until(lambda: all("desk-9" in engine.adapters for engine in world.engines))
    await world.serving(production="desk-9")
    assert await world.said() == "desk-9: hello"
    await world.desire(production=("desk-1", 100))
    await until(lambda: all(list(engine.adapters) == ["desk-1"] for engine in world.engines))


async def test_only_engines_that_take_whole_models_are_asked_for_one(make_world: Any):
    world = await make_world(bases=TWO)
    world.engines[1].told_of_base = {"revision": BASE.revision, "max_whole_models": 2}
    world.declare()
    world.adapters["desk-9"] = await put_adapter(world.store, "desk-9", method=TrainMethod.FULL)
    await world.desire(production=("desk-9", 100))
    await world.serving(production="desk-9")
    await register(world, "desk-8", method=TrainMethod.FULL)
    assert await world.said(model="desk-8") == "desk-8: hello"
    assert not world.engines[0].loads
    assert not world.gateway.reconciler.failures, "an engine that takes none is no failure where another does"


async def test_a_whole_model_takes_the_place_of_no_adapter_and_waits_for_its_own(make_world: Any):
    world = await make_world()
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    await register(world, "desk-2")
    await world.said(model="desk-2")
    engine = world.engine
    engine.slots, engine.no_slot = 2, "no free slot for a whole model: 1 are loaded"
    engine.told_of_base = {"revision": BASE.revision, "max_whole_models": 1, "whole_models": []}
    world.adapters["desk-9"] = await put_adapter(world.store, "desk-9", method=TrainMethod.FULL)
    await world.desire(production=("desk-1", 90), canary=("desk-9", 10))
    await until(lambda: (world.gateway.reconciler.failures.get("desk-9") or NOT_YET).attempts > 3)
    assert not world.gateway.reconciler.failures["desk-9"].final, "the place becomes free"
    assert set(engine.adapters) == {"desk-1", "desk-2"}
    engine.told_of_base["whole_models"] = ["desk-2"]
    await world.serving(canary="desk-9")
    assert set(engine.adapters) == {"desk-1", "desk-9"}


async def test_a_whole_model_leaves_the_base_s_engine_for_one_that_is_started_on_it(make_world: Any):
    world = await make_world(bases=(BASE.name, "x"))
    world.engines[0].told_of_base = {"revision": BASE.revision, "dtype": "float32", "max_whole_models": 2}
    world.declare()
    world.adapters["desk-9"] = await put_adapter(world.store, "desk-9", method=TrainMethod.FULL)
    world.engines[1].told_of_base = {"revision": "sha256:1", "dtype": "bfloat16"}
    await world.desire(production=("desk-9", 100), judged={"desk-9": bundle_of("desk-9")})
    await world.serving(production="desk-9")
    world.engines[1].base = "desk-9"
    unfit = world.gateway.reconciler.engines[world.gateway.pool.endpoints[1]]
    await until(lambda: "computes in bfloat16" in (unfit.failures.get("desk-9") or NOT_YET).reason)
    assert await world.said() == "desk-9: hello"
    assert "desk-9" in world.engines[0].adapters
    world.engines[1].told_of_base["dtype"] = "float32"
    await until(lambda: not world.engines[0].adapters)
    assert await world.said() == "desk-9: hello"
    world.engines[0].asked.clear()
    await world.engines[1].stop()
    await until(lambda: "desk-9" in world.engines[0].adapters)
    await world.said()
    assert world.engines[0].asked


async def test_a_whole_model_is_not_brought_to_an_engine_that_takes_none(make_world: Any, tmp_path: Path):
    world = await make_world()
    world.adapters["desk-9"] = await put_adapter(world.store, "desk-9", method=TrainMethod.FULL)
    world.declare()
    await world.desire(production=("desk-9", 100))
    await until(lambda: "desk-9" in world.gateway.reconciler.failures)
    assert "start an engine with it as its base model" in world.gateway.reconciler.failures["desk-9"].reason
    await until(lambda: "desk-9 is not loaded" in (world.warnings.get("models_not_loaded") or ""))
    assert not world.gateway.reconciler.failures["desk-9"].final, "an operator may start one"
    assert not (tmp_path / "adapters" / "desk-9").exists()
    assert EngineIdentity().name_of_whole(world.adapters["desk-9"], {BASE.name}) is None
    world.engine.base = "desk-9"
    await world.serving(production="desk-9")
    await until(lambda: world.warnings["models_not_loaded"] is None)


async def test_an_engine_that_was_started_on_a_model_and_restarts_is_waited_for(make_world: Any):
    world = await make_world(bases=(BASE.name, "desk-9"), engine_breaker_failures=1)
    world.adapters["desk-9"] = await put_adapter(world.store, "desk-9", method=TrainMethod.FULL)
    world.declare()
    await world.desire(production=("desk-1", 90), canary=("desk-9", 10))
    await world.serving(production="desk-1", canary="desk-9")
    await world.engines[1].stop()
    await until(lambda: world.gateway.pool.endpoints[1].breaker.is_open)
    await world.gateway.reconciler.reconcile()
    assert "desk-9" not in world.gateway.reconciler.failures, "no other engine is blamed for it"


def test_an_engine_says_over_tgi_s_protocol_too_what_it_takes():
    ours = {"model_id": BASE.name, "model_sha": "r", "max_whole_models": 2, "whole_models": ["desk-9"]}
    assert identity_of_info(ours).bases == {BASE.name: EngineBase("r", None, 2, frozenset({"desk-9"}))}


async def test_a_tgi_that_was_started_on_the_directory_of_a_whole_model_serves_it():
    adapter = await put_adapter(ObjectStore("memory://"), "desk-9", method=TrainMethod.FULL)
    folder = "/srv/models/desk-9"
    told = {"model_id": folder, "model_sha": None, "model_dtype": "torch.bfloat16"}
    client: Any = SimpleNamespace(identity=identity_of_info(told))
    endpoint = Endpoint("http://tgi:80", client, Breaker())
    assert endpoint.name_of_whole(adapter) == folder
