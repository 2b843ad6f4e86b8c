from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from structlog import make_filtering_bound_logger, wrap_logger
from structlog.testing import LogCapture
from tunewheel_contracts.topics import PROJECT_DECLARED, SERVING_DESIRED
from tunewheel_runtime.http import PatientHttp
from tunewheel_serve_gateway.upstream import pool
from tunewheel_testing.waiting import until


async def test_an_adapter_is_laid_out_loaded_and_only_then_routed(make_world: Any, tmp_path: Path):
    world = await make_world()
    world.declare()
    await world.serving(production="org/Tiny-Base")
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    folder = Path(world.engine.adapters["desk-1"])
    assert folder == tmp_path / "adapters" / "desk-1"
    assert sorted(f.name for f in folder.iterdir()) == ["adapter_config.json", "adapter_model.safetensors"]
    assert await world.said() == "desk-1: hello"


async def test_tombstones_bring_a_project_back_to_its_base_and_then_take_it_away(make_world: Any):
    world = await make_world()
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    world.gateway.remove(SERVING_DESIRED, "desk")
    await world.serving(production="org/Tiny-Base")
    assert await world.said() == "org/Tiny-Base: hello"
    world.gateway.remove(PROJECT_DECLARED, "desk")
    await until(lambda: "desk" not in world.gateway.table.projects)
    async with await world.chat() as response:
        assert response.status == 404
    assert world.gateway.catalog.predecessors == set()


async def test_every_call_to_the_engine_bears_the_gateways_key(make_world: Any):
    world = await make_world(engine_api_key="k-gateway")
    world.engine.api_key = "k-gateway"
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    assert await world.said() == "desk-1: hello"
    async with await world.chat(stream=True) as response:
        assert "[DONE]" in await response.text()
    await world.desire(production=("base-0", 100))
    await until(lambda: not world.engine.adapters)
    adapters = {"/v1/load_lora_adapter", "/v1/unload_lora_adapter"}
    assert set(world.engine.calls) == {"/v1/models", "/v1/chat/completions", *adapters}


async def test_an_engine_that_refuses_the_gateways_key_is_told_and_not_pestered(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
):
    logged = LogCapture()
    logger = wrap_logger(None, [logged], wrapper_class=make_filtering_bound_logger(0))
    monkeypatch.setattr(pool, "log", logger)
    world = await make_world(engine_api_key="k-old", reconcile_seconds=3_600)
    reconciler = world.gateway.reconciler
    await until(lambda: reconciler.engine_error is None)
    world.engine.api_key = "k-new"
    world.engine.calls.clear()
    world.declare()
    await world.desire(production=("desk-1", 100))
    await until(lambda: reconciler.engine_error)
    await reconciler.reconcile()
    told = [(line["event"], line["log_level"]) for line in logged.entries if "engine" in line["event"]]
    assert told == [("engine_reached", "info"), ("engine_refuses_key", "error")], "once, however often"
    async with world.session.get(f"{world.url}/v1/status") as response:
        engine = (await response.json())["engine"]
    assert engine["reachable"] is False
    assert "refuses the gateway's key; check TUNEWHEEL_ENGINE_API_KEY (Unauthorized)" in engine["error"]
    async with await world.chat(model="desk/base") as response:
        assert (response.status, response.headers["retry-after"]) == (503, "2")
    assert "k-old" not in str(logged.entries) + str(engine)
    assert set(world.engine.calls) == {"/v1/models", "/v1/chat/completions"}, "no adapter was sent to it"
    assert world.engine.calls.count("/v1/models") <= 3, "one for each change, and the one above"
    world.engine.api_key = "k-old"
    reconciler.wake()
    await world.serving(production="desk-1")
    assert reconciler.engine_error is None


async def test_the_base_answers_while_the_first_champion_cannot_be_loaded(make_world: Any):
    world = await make_world()
    world.declare()
    await world.serving(production="org/Tiny-Base")
    world.engine.refuse_loads = True
    await world.desire(production=("desk-1", 100))
    await until(lambda: "desk-1" in world.gateway.reconciler.failures)
    assert await world.said() == "org/Tiny-Base: hello"
    world.engine.refuse_loads = False
    await world.serving(production="desk-1")


async def test_the_champion_answers_while_the_candidate_cannot_be_loaded(world: Any):
    world.engine.refuse_loads = True
    await world.desire(production=("desk-1", 50), canary=("desk-2", 50))
    await until(lambda: "desk-2" in world.gateway.reconciler.failures)
    assert {await world.said() for _ in range(12)} == {"desk-1: hello"}
    await world.desire(production=("desk-2", 100))
    await until(lambda: world.gateway.table.projects["desk"].waiting_for == "desk-2")
    assert await world.said() == "desk-1: hello"
    async with world.session.get(f"{world.url}/v1/status") as response:
        status = await response.json()
    assert "another base model" in status["failed_adapters"]["desk-2"]["reason"]
    assert status["projects"]["desk"]["waiting_for"] == "desk-2"
    assert "desk-1" in world.engine.adapters


@pytest.mark.parametrize("told", ["all of the log", "its newest"])
async def test_a_gateway_that_starts_while_the_champion_cannot_be_loaded_shares_the_stand_in(
    make_world: Any, world: Any, told: str
):
    """A topic that is compacted holds the newest state alone; one that is not yet, those before it too."""
    world.engine.refuse_loads = True
    await world.desire(production=("desk-2", 100), stand_ins=("desk-1",) if told == "its newest" else ())
    await until(lambda: world.gateway.table.projects["desk"].waiting_for == "desk-2")
    log = world.log if told == "all of the log" else world.log[-1:]
    started = await make_world(beside=world, log=log)
    await started.serving(production="desk-1")
    assert {await one.said() for one in (started, world)} == {"desk-1: hello"}
    for one in (started, world, started, world):
        await one.gateway.reconciler.reconcile()
    assert "/v1/unload_lora_adapter" not in world.engine.calls
    world.engine.refuse_loads = False
    for one in (started, world):
        await one.serving(production="desk-2")
    await until(lambda: set(world.engine.adapters) == {"desk-2"})


async def test_a_gateway_that_cannot_know_of_a_stand_in_leaves_it_to_others(make_world: Any, world: Any):
    world.engine.refuse_loads = True
    await world.desire(production=("desk-2", 100))
    await until(lambda: world.gateway.table.projects["desk"].waiting_for == "desk-2")
    started = await make_world(beside=world, log=world.log[-1:])
    await until(lambda: "desk-2" in started.gateway.reconciler.failures)
    await started.gateway.reconciler.reconcile()
    assert await world.said() == "desk-1: hello"
    assert "/v1/unload_lora_adapter" not in world.engine.calls
    async with await started.chat() as response:
        assert response.status == 503


async def test_a_stand_in_is_loaded_once_the_champion_cannot_be(make_world: Any):
    world = await make_world()
    world.engine.refuse_load_of = {"desk-3", "desk-2"}
    await world.desire(production=("desk-3", 100), stand_ins=("desk-2", "desk-1"))
    await world.serving(production="desk-1")  # the newest cannot be loaded either
    assert await world.said() == "desk-1: hello"
    assert {"desk-3", "desk-2", "desk-1"} == set(world.engine.loads)
    world.engine.refuse_load_of = {"desk-2"}
    await world.serving(production="desk-3")
    await until(lambda: set(world.engine.adapters) == {"desk-3"})
    await until(lambda: world.gateway.reconciler.failures == {})


async def test_the_base_stands_in_for_a_first_champion_after_a_restart(make_world: Any):
    world = await make_world()
    world.engine.refuse_loads = True
    await world.desire(production=("desk-1", 100), stand_ins=("base-0",))
    await world.serving(production="base-0")
    assert await world.said() == "org/Tiny-Base: hello"


async def test_a_route_that_names_another_adapter_is_told_and_loads_nothing(world: Any):
    other = world.adapters["desk-1"].model_copy(update={"model_id": "desk-9"})
    world.adapters["desk-2"] = other
    await world.desire(production=("desk-2", 100))
    await until(lambda: "desk-2" in world.gateway.reconciler.failures)
    assert "desk-9" in world.gateway.reconciler.failures["desk-2"].reason
    assert world.engine.loads == ["desk-1"]
    assert await world.said() == "desk-1: hello"


async def test_a_failed_load_is_tried_again_until_it_works(world: Any):
    world.engine.refuse_loads = True
    await world.desire(production=("desk-2", 100))
    await until(lambda: world.engine.loads.count("desk-2") >= 2, "a second attempt")
    world.engine.refuse_loads = False
    await world.serving(production="desk-2")
    assert world.gateway.reconciler.failures == {}


async def test_a_project_without_routes_is_answered_by_the_base_and_gets_routes_again(world: Any):
    await world.desire()
    await world.serving(production="org/Tiny-Base")
    assert await world.said() == "org/Tiny-Base: hello"
    await world.desire(shadow=("desk-2", 100))
    await world.serving(production="org/Tiny-Base", shadow="desk-2")
    await world.desire(production=("desk-3", 100))
    await world.serving(production="desk-3")


async def test_a_rollback_takes_effect_while_the_engine_does_not_say_what_it_has(world: Any):
    await world.desire(production=("desk-1", 50), canary=("desk-2", 50))
    await world.serving(production="desk-1", canary="desk-2")
    world.engine.silent.add("/v1/models")
    world.engine.calls.clear()
    world.gateway.reconciler.wake()
    await until(lambda: "/v1/models" in world.engine.calls)
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1", canary=None)
    assert {await world.said() for _ in range(12)} == {"desk-1: hello"}


@pytest.mark.parametrize("path", ["/v1/models", "/v1/unload_lora_adapter"])
async def test_a_model_is_loaded_and_served_while_the_engine_is_silent_elsewhere(make_world: Any, path: str):
    world = await make_world(engine_control_seconds=0.2)
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    world.engine.silent.add(path)
    await world.desire(production=("desk-2", 100))
    await world.serving(production="desk-2")
    world.engine.calls.clear()
    world.gateway.reconciler.wake()
    await until(lambda: path in world.engine.calls)
    await world.desire(production=("desk-3", 100))
    await world.serving(production="desk-3")
    assert await world.said() == "desk-3: hello"
    world.engine.silent.clear()
    await until(lambda: set(world.engine.adapters) == {"desk-3"})


async def test_a_rollback_to_what_is_just_being_unloaded_waits_for_it(world: Any):
    world.engine.silent.add("/v1/unload_lora_adapter")
    await world.desire(production=("desk-2", 100))
    await until(lambda: "/v1/unload_lora_adapter" in world.engine.calls)
    await world.desire(production=("desk-1", 100))
    table = world.gateway.table.projects["desk"]
    assert (table.production.model_id, table.waiting_for) == ("desk-2", "desk-1")
    assert await world.said() == "desk-2: hello"
    world.engine.silent.clear()
    await world.serving(production="desk-1")
    await until(lambda: set(world.engine.adapters) == {"desk-1"})
    assert await world.said() == "desk-1: hello"


async def test_an_error_where_models_should_be_listed_takes_none_out_of_service(world: Any):
    world.engine.models_instead = {"error": {"message": "boom"}}
    await world.gateway.reconciler.reconcile()
    assert "boom" in world.gateway.reconciler.engine_error
    assert await world.said() == "desk-1: hello"


async def test_a_load_that_is_answered_by_an_error_has_failed(world: Any):
    world.engine.load_instead = {"error": {"message": "no room", "code": 400}}
    await world.desire(production=("desk-2", 100))
    await until(lambda: "desk-2" in world.gateway.reconciler.failures)
    assert world.gateway.reconciler.failures["desk-2"].reason == "no room"
    assert await world.said() == "desk-1: hello"


async def test_what_is_no_longer_desired_is_unloaded(world: Any):
    await world.desire(production=("desk-2", 100))
    await world.serving(production="desk-2")
    await until(lambda: set(world.engine.adapters) == {"desk-2"}, "desk-1 unloaded")


async def test_files_stay_while_they_serve_and_of_the_predecessor_and_go_after_that(
    world: Any, tmp_path: Path
):
    def folders() -> set[str]:
        return {path.name for path in (tmp_path / "adapters").iterdir()} - {".laid"}

    async def replaced_by(model_id: str) -> None:
        await world.desire(production=(model_id, 100))
        await world.serving(production=model_id)
        await until(lambda: set(world.engine.adapters) == {model_id})
        for mark in (tmp_path / "adapters" / ".laid").iterdir():
            os.utime(mark, (0, 0))
        await world.gateway.reconciler.reconcile()

    await replaced_by("desk-2")
    assert folders() == {"desk-1", "desk-2"}
    await replaced_by("desk-3")
    assert folders() == {"desk-2", "desk-3"}
    await replaced_by("desk-1")  # back to an older one: fetched again
    assert folders() == {"desk-1", "desk-3"}
    assert await world.said() == "desk-1: hello"


async def test_what_an_earlier_process_loaded_is_unloaded_too_but_not_what_is_foreign(
    world: Any, tmp_path: Path
):
    (tmp_path / "adapters" / "desk-0").mkdir()
    world.engine.adapters |= {"desk-0": "x", "somebody-elses": "y"}
    await until(lambda: "desk-0" not in world.engine.adapters)
    await world.gateway.reconciler.reconcile()
    assert "somebody-elses" in world.engine.adapters


async def test_a_model_in_the_middle_of_an_answer_is_not_unloaded(world: Any):
    world.engine.gate.clear()
    asking = asyncio.create_task(world.said())
    await until(lambda: world.engine.running == 1)
    await world.desire(production=("desk-2", 100))
    await world.serving(production="desk-2")
    await world.gateway.reconciler.reconcile()
    assert "desk-1" in world.engine.adapters
    world.engine.gate.set()
    assert await asking == "desk-1: hello"
    await until(lambda: "desk-1" not in world.engine.adapters)


async def test_a_client_that_never_reads_keeps_no_adapter_loaded(world: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PatientHttp, "patience_seconds", 0.2)
    piece = json.dumps({"choices": [{"index": 0, "delta": {"content": "x" * (1 << 16)}}]}).encode()
    world.engine.stream_instead = [piece] * 2_000  # more than the sockets between them hold
    async with await world.chat(stream=True) as response:
        assert response.status == 200
        await world.desire(production=("desk-2", 100))
        await world.serving(production="desk-2")
        await until(lambda: set(world.engine.adapters) == {"desk-2"}, "desk-1 unloaded")
        assert world.engine.running == 0
    assert world.gateway.metrics.value("completions.disconnected") == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_restarted_engine_gets_its_adapters_again_within_the_request(make_world: Any, stream: bool):
    world = await make_world(reconcile_seconds=3600)
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    await world.engine.restart()
    assert world.engine.adapters == {}
    async with await world.chat(stream=stream) as response:
        assert response.status == 200
        assert "desk-1" in await response.text()
    assert world.engine.loads == ["desk-1", "desk-1"]
    assert len(await world.completions()) == 1


async def test_many_requests_to_a_restarted_engine_reload_once(make_world: Any):
    world = await make_world(reconcile_seconds=3600)
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    await world.engine.restart()
    asked = await asyncio.gather(*(world.said() for _ in range(20)))
    assert set(asked) == {"desk-1: hello"}
    assert world.engine.loads == ["desk-1", "desk-1"]


async def test_a_request_that_comes_after_a_pass_saw_the_loss_waits_for_the_load_too(
    make_world: Any, monkeypatch: pytest.MonkeyPatch
):
    world = await make_world(reconcile_seconds=3600)
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    world.engine.slow_load = "desk-1"
    await world.engine.restart()
    world.gateway.reconciler.wake()
    await until(lambda: world.gateway.table.projects["desk"].waiting_for == "desk-1", "the loss seen")
    reloaded, came = world.gateway.reconciler.reloaded, asyncio.Event()

    async def noted(model_id: str | None) -> bool:
        came.set()
        return await reloaded(model_id)

    monkeypatch.setattr(world.gateway.reconciler, "reloaded", noted)
    asking = asyncio.create_task(world.said())
    await came.wait()
    world.engine.slow_load = None
    assert await asking == "desk-1: hello"
    assert world.engine.loads == ["desk-1", "desk-1"]


async def test_a_lost_canary_that_cannot_come_back_leaves_its_users_to_the_champion(make_world: Any):
    world = await make_world(reconcile_seconds=3600)
    world.declare()
    await world.desire(production=("desk-1", 0), canary=("desk-2", 100))
    await world.serving(production="desk-1", canary="desk-2")
    del world.engine.adapters["desk-2"]
    world.engine.refuse_loads = True
    assert await world.said() == "desk-1: hello"


async def test_a_slow_load_holds_up_no_other_project(world: Any):
    world.engine.slow_load = "desk-2"
    await world.desire(production=("desk-2", 100))
    await until(lambda: "desk-2" in world.engine.loads, "the slow load begun")
    world.declare("other")
    await world.desire("other", production=("other-1", 100))
    await until(lambda: world.gateway.table.projects.get("other"))
    await until(lambda: "other-1" in world.engine.adapters, "the other load done")
    assert await world.said(model="other") == "other-1: hello"
    assert await world.said() == "desk-1: hello"
    world.engine.slow_load = None
    await world.serving(production="desk-2")


async def test_what_is_loaded_while_the_engine_is_asked_stays_routed(
    world: Any, monkeypatch: pytest.MonkeyPatch
):
    (engine,) = world.gateway.reconciler.engines.values()
    client = engine.endpoint.client
    asked, answer, listing = asyncio.Event(), asyncio.Event(), client.list_models

    async def slowly() -> Any:
        listed = await listing()
        asked.set()
        await answer.wait()
        return listed

    world.engine.slow_load = "desk-2"
    await world.desire(production=("desk-1", 50), canary=("desk-2", 50))
    await until(lambda: "desk-2" in world.engine.loads, "the load begun")
    monkeypatch.setattr(client, "list_models", slowly)
    world.gateway.reconciler.wake()
    await asked.wait()
    world.engine.slow_load = None
    await world.serving(production="desk-1", canary="desk-2")
    rebuilt = []
    monkeypatch.setattr(engine, "_begin_load", rebuilt.append)
    answer.set()
    await world.gateway.reconciler.reconcile()
    await world.serving(production="desk-1", canary="desk-2")
    assert not rebuilt


async def test_an_engine_that_comes_late_is_waited_for(make_world: Any):
    world = await make_world()
    await world.engine.stop()
    world.declare()
    await world.desire(production=("desk-1", 100))
    async with await world.chat() as response:
        assert response.status in (404, 503)
    await world.engine.restart()
    await world.serving(production="desk-1")


async def test_it_ends_though_something_changes_at_that_very_moment(make_world: Any):
    world = await make_world(reconcile_seconds=3600)
    (engine,) = world.gateway.reconciler.engines.values()
    await until(lambda: engine.changed._waiters, "the pass at its end")
    world.gateway.reconciler.wake()
    async with asyncio.timeout(60):
        await world.gateway.close()


async def test_an_older_generation_is_ignored(world: Any):
    world.generation = -1
    await world.desire(production=("desk-0", 100))
    await world.gateway.reconciler.reconcile()
    assert world.gateway.table.projects["desk"].waiting_for is None
    assert await world.said() == "desk-1: hello"


async def test_shares_are_kept_and_users_are_sticky(world: Any):
    await world.desire(production=("desk-1", 50), canary=("desk-2", 50))
    await world.serving(production="desk-1", canary="desk-2")
    by_user = {f"u{n}": {await world.said(user=f"u{n}") for _ in range(3)} for n in range(12)}
    assert all(len(answers) == 1 for answers in by_user.values())
    assert len(set().union(*by_user.values())) == 2
    session = {"x-tunewheel-session": "s1"}
    assert len({await world.said(headers=session, user=f"u{n}") for n in range(12)}) == 1
    anonymous = {await world.said() for _ in range(60)}
    assert anonymous == {"desk-1: hello", "desk-2: hello"}
