"""Two engines behind one gateway: every adapter on both, and who fails is replaced before the first token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from opentelemetry.metrics import NoOpMeter
from pydantic import SecretStr, ValidationError
from structlog.testing import capture_logs
from tunewheel_runtime.store import ObjectStore
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.routing import Target
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.upstream import asking
from tunewheel_serve_gateway.upstream.bases import EngineIdentity
from tunewheel_serve_gateway.upstream.breaker import Breaker
from tunewheel_serve_gateway.upstream.endpoint import Endpoint
from tunewheel_serve_gateway.upstream.pool import Pool
from tunewheel_serve_gateway.upstream.protocol import ModelNotLoaded, UpstreamSilent
from tunewheel_testing.adapters import OTHER_BASE, put_adapter
from tunewheel_testing.waiting import until

TWO = ("org/Tiny-Base", "org/Tiny-Base")


@pytest.fixture(name="make_pair")
async def give_make_pair(make_world: Any) -> Any:
    async def make(**settings: Any) -> Any:
        """A gateway and two engines that both have the champion ``desk-1``; no pass but on a change."""
        world = await make_world(bases=TWO, **({"reconcile_seconds": 3600} | settings))
        world.declare()
        await world.desire(production=("desk-1", 100))
        await until(lambda: all(set(engine.adapters) == {"desk-1"} for engine in world.engines))
        await until(lambda: all(e.ready >= {"desk-1"} for e in world.gateway.pool.endpoints))
        return world

    return make


async def status_of(world: Any) -> list[dict[str, Any]]:
    async with world.session.get(f"{world.url}/v1/status") as response:
        return (await response.json())["engine"]["endpoints"]


def retries(world: Any) -> int:
    metrics, endpoints = world.gateway.metrics, world.gateway.pool.endpoints
    return sum(metrics.value("engine.retries", of=endpoint.name) for endpoint in endpoints)


async def streamed(world: Any, text: str = "hello") -> str:
    async with await world.chat(text, stream=True) as response:
        assert response.status == 200, await response.text()
        return await response.text()


async def test_every_adapter_is_on_every_engine_and_routed_as_soon_as_one_has_it(make_pair: Any):
    world = await make_pair()
    world.engines[1].slow_load = "desk-2"
    await world.desire(production=("desk-2", 100))
    await world.serving(production="desk-2")
    assert {await world.said() for _ in range(4)} == {"desk-2: hello"}
    assert "desk-2" not in world.engines[1].adapters
    world.engines[1].slow_load = None
    await until(lambda: all(set(engine.adapters) == {"desk-2"} for engine in world.engines))


async def test_an_engine_that_refuses_an_adapter_keeps_it_from_no_other(make_pair: Any):
    world = await make_pair()
    world.engines[0].refuse_load_of = {"desk-2"}
    await world.desire(production=("desk-2", 100))
    await world.serving(production="desk-2")
    assert {await world.said() for _ in range(4)} == {"desk-2: hello"}
    assert {body["model"] for body in world.engines[0].asked} == set()
    assert world.gateway.table.projects["desk"].waiting_for is None
    assert "another base model" in world.gateway.reconciler.failures["desk-2"].reason
    refusing, other = [one["not_served"] for one in await status_of(world)]
    assert "another base model" in refusing["desk-2"]
    assert other == {}


async def test_conversations_stay_with_an_engine_until_it_is_busy(make_pair: Any):
    world = await make_pair()
    first, second = world.texts(0, 2), world.texts(1, 2)
    for text in (*first, *second, first[0]):
        await world.said(text)
    assert [len(engine.asked) for engine in world.engines] == [3, 2]
    world.engines[0].gate.clear()
    waiting = [asyncio.create_task(world.said(first[0])) for _ in range(2)]
    await until(lambda: world.engines[0].running == 2)
    assert await world.said(first[0]) == f"desk-1: {first[0]}", "two of three would be above the bound"
    assert [len(engine.asked) for engine in world.engines] == [5, 3]
    world.engines[0].gate.set()
    await asyncio.gather(*waiting)


BROKEN = (500, {"error": {"message": "boom"}}, {})


@pytest.mark.parametrize(("stream", "dies"), [(False, True), (True, True), (True, False)])
async def test_an_engine_that_fails_before_the_first_byte_is_replaced(
    make_pair: Any, stream: bool, dies: bool
):
    world = await make_pair(engine_breaker_seconds=3600)
    world.engines[0].dies = dies
    world.engines[0].fail_with = None if dies else BROKEN
    for text in world.texts(0, 12):
        assert "desk-1" in (await streamed(world, text) if stream else await world.said(text))
    assert len(world.engines[1].asked) == 12
    assert len(world.engines[0].asked) == 5, "then its breaker opened"
    assert retries(world) == 5
    told = {one["url"]: one for one in await status_of(world)}
    dead, alive = (told[engine.url] for engine in world.engines)
    assert (dead["up"], alive["up"], alive["error"]) == (False, True, None)
    assert dead["error"]
    assert dead["not_served"] == {"desk-1": f"the engine is not asked: {dead['error']}"}
    assert alive["not_served"] == {}
    text = world.telemetry.metrics_text()
    name = dead["url"].removeprefix("http://")
    labels = f'{{service="serve-gateway",engine="{name}"}}'
    assert f"tunewheel_gateway_engine_retries_total{labels} 5" in text
    assert f"tunewheel_gateway_engine_breakers_opened_total{labels} 1" in text
    assert 'tunewheel_gateway_engines_up{service="serve-gateway"} 1\n' in text
    assert not any(event.error for event in await world.completions(12))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_fails_on_two_engines_is_held_against_none(make_world: Any, stream: bool):
    """One caller's prompt must not shut the engines to everybody."""
    world = await make_world(bases=(*TWO, TWO[0]), engine_breaker_failures=1, reconcile_seconds=3600)
    world.declare()
    await world.desire(production=("base-0", 100))
    await world.serving(production="base-0")
    for engine in world.engines:
        engine.first["poison"] = [BROKEN] * 10
    for asked in (2, 4, 6):
        async with await world.chat("poison", stream=stream) as response:
            assert response.status == 502
        assert sum(len(engine.asked) for engine in world.engines) == asked, "no third engine"
    assert all(one["up"] for one in await status_of(world))
    assert "hello" in await world.said()


HEAD = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 900\r\n"
DEATHS = {
    "closed": "closed",
    "reset": "reset",
    "after one byte of the head": "H",
    "in the middle of the head": HEAD[:40],
    "after the head": HEAD + "\r\n",
    "after the role": HEAD + '\r\ndata: {"choices": [{"index": 0, "delta": {"role": "assistant"}}]}\n\n',
    "without speaking HTTP": "CUDA error: device-side assert triggered\r\n\r\n",
    "without speaking JSON": "HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\ndata: nonsense\n",
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("death", DEATHS)
async def test_a_request_that_ends_engines_reaches_two_of_four(make_world: Any, stream: bool, death: str):
    world = await make_world(bases=TWO * 2, reconcile_seconds=3600)
    world.declare()
    for engine in world.engines:
        engine.poison = DEATHS[death]
    async with await world.chat("poison", stream=stream) as response:
        assert (response.status, response.headers["x-should-retry"]) == (502, "false")
        assert (await response.json())["error"]["code"] == "engine_error"
    assert sum(len(engine.asked) for engine in world.engines) == 2
    assert "hello" in await world.said()
    for engine in world.engines:
        engine.poison = ""
    for engine in world.engines:
        engine.poison = DEATHS[death]
        async with await world.chat("poison", stream=stream) as response:
            assert response.status == 200, "a single engine that dies is replaced"
        engine.poison = ""


@pytest.mark.parametrize("stream", [False, True])
async def test_engines_that_cannot_be_reached_or_are_full_are_no_reason_to_give_up(
    make_world: Any, stream: bool
):
    world = await make_world(bases=TWO * 2, reconcile_seconds=3600)
    world.declare()
    for engine in world.engines[:2]:
        await engine.stop()
    world.engines[2].fail_with = (429, {"error": {"message": "full"}}, {})
    for _ in range(4):
        async with await world.chat(stream=stream) as response:
            assert response.status == 200
    for engine in world.engines[2:]:
        engine.fail_with, engine.dies = None, True
    async with await world.chat(stream=stream) as response:
        assert (response.status, response.headers["x-should-retry"]) == (502, "false")


async def test_a_lone_engine_that_dies_may_be_asked_again(make_world: Any):
    """It may have been restarted; clients retry after a while."""
    world = await make_world(reconcile_seconds=3600)
    world.declare()
    world.engine.dies = True
    async with await world.chat() as response:
        assert (response.status, response.headers["retry-after"]) == (503, "2")
        assert "x-should-retry" not in response.headers


@pytest.mark.parametrize("status", [301, 303, 307])
async def test_the_redirect_of_an_engine_is_not_followed(make_pair: Any, status: int):
    world = await make_pair(engine_breaker_failures=1)
    stranger = world.engines[1].url + "/v1/chat/completions"
    world.engines[1].silent.add("/v1/models")
    for engine in world.engines:
        engine.fail_with = (status, {}, {"location": stranger, "set-cookie": "pin=1; Path=/"})
    for stream in (False, True):
        world.gateway.reconciler.wake()
        async with await world.chat(stream=stream) as response:
            told = (await response.json())["error"]
            assert (response.status, told["code"]) == (503, "engine_unavailable")
            assert f"answers {status}, a redirect" in told["message"]
    calls = [path for engine in world.engines for path in engine.calls if "chat" in path]
    assert len(calls) == sum(len(engine.asked) for engine in world.engines) <= 4
    assert not any(engine.cookies for engine in world.engines)


class Alike:
    """An engine that gives no answer to ``long``, and lets ``meanwhile`` happen first."""

    identity = EngineIdentity()

    def __init__(self, meanwhile: Callable[[], Awaitable[Any]]) -> None:
        self.asked: list[str] = []
        self._meanwhile = meanwhile

    async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(body["text"])
        if body["text"] == "long":
            await self._meanwhile()
            raise UpstreamSilent("not in time")
        return body


@pytest.mark.parametrize("is_busy", [True, False])
async def test_a_whole_answer_that_takes_too_long_is_no_fault_of_an_engine_that_answers_others(is_busy: bool):
    """Where the engine gave nobody an answer it may hang, and one other is tried."""

    async def meanwhile() -> None:
        if is_busy:
            await asking.complete(pool, target, {"text": "short"})

    engines = [Alike(meanwhile) for _ in range(3)]
    found = [Endpoint(f"http://h:{n}", cast(Any, e), Breaker(failures=1)) for n, e in enumerate(engines)]
    pool = Pool(found, Metrics(NoOpMeter("")))
    for endpoint in found:
        endpoint.take_listing({"base"}, set())
    target = Target("desk", "base", "base", "")
    found[0].outstanding -= 2  # the long request and the short ones go to the first
    with pytest.raises(UpstreamSilent):
        await asking.complete(pool, target, {"text": "long"})
    asked = [text for engine in engines for text in engine.asked if text == "long"]
    assert len(asked) == (1 if is_busy else 2)
    assert sum(endpoint.breaker.is_open for endpoint in found) == (0 if is_busy else 2)


async def test_an_answer_that_has_begun_is_never_asked_for_again(make_pair: Any):
    world = await make_pair()
    for engine in world.engines:
        engine.break_off_after = 1
    text = await streamed(world)
    assert '"error"' in text
    assert sum(len(engine.asked) for engine in world.engines) == 1


async def test_an_engine_that_hangs_is_left_for_another(make_pair: Any):
    world = await make_pair(engine_first_byte_seconds=2.0, engine_breaker_failures=1)
    world.engines[0].silent.add("/v1/chat/completions")
    for text in world.texts(0, 4):
        assert await world.said(text) == f"desk-1: {text}"
    assert world.engines[0].calls.count("/v1/chat/completions") == 1
    world.engines[0].silent.clear()
    world.gateway.reconciler.wake()
    await until(lambda: all(not e.breaker.is_open for e in world.gateway.pool.endpoints))
    await world.said(*world.texts(0))
    assert world.engines[0].asked, "it is asked again once it lists its models"


async def test_a_stream_that_falls_silent_in_the_middle_ends_after_the_time_between_tokens(make_pair: Any):
    world = await make_pair(engine_timeout_seconds=0.2, engine_first_byte_seconds=600)
    for engine in world.engines:
        engine.gate.clear()
    text = await streamed(world)
    assert '"engine_timeout"' in text
    for engine in world.engines:
        engine.gate.set()


async def test_a_full_queue_sends_the_request_to_another_and_is_passed_on_where_all_are_full(make_pair: Any):
    world = await make_pair()
    world.engines[0].fail_with = (429, {"error": {"message": "full"}}, {"retry-after": "7"})
    for text in world.texts(0, 8):
        assert await world.said(text) == f"desk-1: {text}"
    assert len(world.engines[0].asked) == 8, "a full queue is no fault"
    world.engines[1].fail_with = world.engines[0].fail_with
    async with await world.chat() as response:
        assert (response.status, response.headers["retry-after"]) == (429, "7")


async def test_what_is_the_clients_fault_is_told_at_once(make_pair: Any):
    world = await make_pair()
    for engine in world.engines:
        engine.fail_with = (422, {"error": {"message": "too hot", "param": "temperature"}}, {})
    for _ in range(6):
        async with await world.chat() as response:
            assert response.status == 422
    assert sum(len(engine.asked) for engine in world.engines) == 6
    assert all(one["up"] for one in await status_of(world))


@pytest.mark.parametrize("how", ["lost it", "restarted"])
async def test_an_engine_without_its_adapter_is_left_out_until_it_is_loaded_again(make_pair: Any, how: str):
    world = await make_pair()
    await (world.engine.restart() if how == "restarted" else asyncio.sleep(0))
    world.engine.adapters.clear()
    for text in world.texts(0, 3):
        assert await world.said(text) == f"desk-1: {text}"
    await until(lambda: "desk-1" in world.engine.adapters, "loaded again in the background")
    await until(lambda: all("desk-1" in e.ready for e in world.gateway.pool.endpoints))


async def test_a_request_from_before_the_load_takes_no_loaded_model_out_of_service():
    class Late:
        identity = EngineIdentity()

        async def complete(self, body: dict[str, Any]) -> dict[str, Any]:
            if body["text"] == "late":
                endpoint.take_loaded("desk-1")
            raise ModelNotLoaded("it has no desk-1")

    endpoint = Endpoint("http://h:1", cast(Any, Late()), Breaker(failures=1))
    pool = Pool([endpoint], Metrics(NoOpMeter("")))
    endpoint.take_listing({"base", "desk-1"}, set())
    adapter = await put_adapter(ObjectStore("memory://"), "desk-1")
    target = Target("desk", "desk-1", "desk-1", "", adapter=adapter)
    for text, is_left in [("late", True), ("now", False)]:
        with pytest.raises(ModelNotLoaded):
            await asking.complete(pool, target, {"text": text})
        assert ("desk-1" in endpoint.ready) is is_left


async def test_an_engine_that_comes_back_has_its_adapters_soon(make_pair: Any):
    world = await make_pair(reconcile_seconds=0.2)
    await world.engine.stop()
    for text in world.texts(0, 8):
        assert await world.said(text) == f"desk-1: {text}"
    await until(lambda: world.gateway.pool.endpoints[0].breaker.is_open)
    await world.engine.restart()
    await until(lambda: "desk-1" in world.engine.adapters)
    await until(lambda: not world.gateway.pool.endpoints[0].breaker.is_open)


async def test_where_nobody_answers_clients_are_told_at_once_and_no_route_changes(make_pair: Any):
    world = await make_pair()
    await world.desire(production=("desk-1", 50), canary=("desk-2", 50))
    await world.serving(production="desk-1", canary="desk-2")
    for engine in world.engines:
        await engine.stop()
    for _ in range(8):
        async with await world.chat() as response:
            assert response.status == 503
            assert "cannot be reached" in (await response.json())["error"]["message"]
    assert all(e.breaker.is_open for e in world.gateway.pool.endpoints)
    await world.serving(production="desk-1", canary="desk-2")


async def test_a_canary_only_a_dead_engine_has_gets_no_traffic(make_pair: Any):
    world = await make_pair(engine_breaker_failures=1)
    world.engines[1].slow_load = "desk-2"
    await world.desire(production=("desk-1", 0), canary=("desk-2", 100))
    await world.serving(production="desk-1", canary="desk-2")
    await world.engines[0].stop()
    async with await world.chat() as response:
        assert response.status in (200, 503)
    await world.serving(production="desk-1", canary=None)
    assert await world.said() == "desk-1: hello"
    world.engines[1].slow_load = None


async def test_each_engine_keeps_an_adapter_while_it_answers_with_it(make_pair: Any):
    world = await make_pair()
    for engine in world.engines:
        engine.gate.clear()
    asking = asyncio.create_task(streamed(world))
    await until(lambda: any(engine.running for engine in world.engines))
    busy, idle = sorted(world.engines, key=lambda engine: -engine.running)
    await world.desire(production=("desk-2", 100))
    await until(lambda: set(idle.adapters) == {"desk-2"})
    await until(lambda: set(busy.adapters) == {"desk-1", "desk-2"})
    for engine in world.engines:
        engine.gate.set()
    assert "[DONE]" in await asking, "a change of routes drops no stream"
    world.gateway.reconciler.wake()
    await until(lambda: set(busy.adapters) == {"desk-2"})


async def test_where_slots_are_full_what_no_route_names_goes_first(make_pair: Any):
    world = await make_pair()
    for engine in world.engines:
        engine.slots = 1
    await world.desire(production=("desk-2", 100), stand_ins=("desk-1",))
    await until(lambda: world.gateway.reconciler.failures.get("desk-2"))
    assert "No free lora slots" in world.gateway.reconciler.failures["desk-2"].reason
    assert await world.said() == "desk-1: hello", "the one that answers is desired"
    await world.desire(production=("base-0", 100))
    await until(lambda: not any(engine.adapters for engine in world.engines))
    for engine in world.engines:
        engine.adapters["desk-0"] = "an earlier process loaded it"
    (world.gateway.reconciler._files._root / "desk-0").mkdir()
    world.gateway.reconciler._files._note("desk-0")  # lately: it is left alone unless its place is needed
    await world.gateway.reconciler.reconcile()
    assert all("desk-0" in engine.adapters for engine in world.engines)
    await world.desire(production=("desk-2", 100))
    await until(lambda: all(set(engine.adapters) == {"desk-2"} for engine in world.engines))


async def test_a_project_is_answered_by_the_engines_of_its_base(make_world: Any):
    world = await make_world(bases=("org/Tiny-Base", "org/Other"))
    world.adapters["shop-1"] = await put_adapter(world.store, "shop-1", base=OTHER_BASE)
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.desire("shop", production=("shop-1", 100))
    await world.serving(production="desk-1")
    await until(lambda: set(world.engines[1].adapters) == {"shop-1"})
    await until(lambda: world.gateway.table.projects["shop"].production)
    assert {await world.said() for _ in range(3)} == {"desk-1: hello"}
    assert {await world.said(model="shop") for _ in range(3)} == {"shop-1: hello"}
    assert await world.said(model="desk/base") == "org/Tiny-Base: hello"
    assert [set(engine.adapters) for engine in world.engines] == [{"desk-1"}, {"shop-1"}]
    assert [one["bases"] for one in await status_of(world)] == [["org/Tiny-Base"], ["org/Other"]]


async def test_an_adapter_whose_base_no_engine_serves_is_told(make_world: Any):
    world = await make_world(bases=TWO)
    world.adapters["shop-1"] = await put_adapter(world.store, "shop-1", base=OTHER_BASE)
    await world.desire("shop", production=("shop-1", 100))
    await until(lambda: "shop-1" in world.gateway.reconciler.failures)
    reason = world.gateway.reconciler.failures["shop-1"].reason
    assert "was trained on org/Other, and the engine serves org/Tiny-Base" in reason
    assert not any(engine.loads for engine in world.engines)


async def test_an_adapter_that_an_engine_of_another_base_has_loaded_does_not_answer(make_world: Any):
    """An earlier gateway may have loaded it there: vLLM compares not even shapes."""
    world = await make_world(bases=("org/Tiny-Base", "org/Other"))
    world.engines[1].adapters["desk-1"] = "/somewhere"
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    assert {await world.said() for _ in range(4)} == {"desk-1: hello"}
    assert not world.engines[1].asked
    await world.engines[0].stop()
    async with await world.chat() as response:
        assert response.status == 503
    assert not world.engines[1].asked


async def test_an_engine_is_asked_for_its_base_by_the_name_that_it_serves(make_world: Any):
    """vLLM's ``--served-model-name`` is any name; ``root`` is what was loaded."""
    world = await make_world(bases=("prod",))
    world.engine.told_of_base = {"root": "org/Tiny-Base"}
    await world.gateway.reconciler.reconcile()
    world.declare()
    assert await world.said(model="desk/base") == "prod: hello"
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    assert await world.said() == "desk-1: hello"


async def test_a_gateway_that_starts_into_an_unloadable_champion_answers_at_once(
    make_world: Any, make_pair: Any
):
    """By the champion of before, where an engine has it, and by the base where there was none."""
    world = await make_pair()
    for engine in world.engines:
        engine.refuse_load_of = {"desk-2"}
    await world.desire(production=("desk-2", 100), stand_ins=("desk-1",))
    started = await make_world(beside=world, log=world.log[-1:])
    assert await started.said() == "desk-1: hello"
    await world.desire(production=("desk-2", 100), stand_ins=("base-0",))
    started = await make_world(beside=world, log=world.log[-1:])
    assert await started.said() == "org/Tiny-Base: hello"


async def test_what_an_engine_says_of_a_request_is_in_no_log_of_the_process(make_pair: Any):
    """It may quote the prompt, and the project may log no texts."""
    world = await make_pair(engine_breaker_failures=1, engine_breaker_seconds=3600)
    world.engine.fail_with = (503, {"error": {"message": "cannot parse 'my card is 4111'"}}, {})
    with capture_logs() as logs:
        for text in world.texts(0, 2):
            assert await world.said(text) == f"desk-1: {text}"
    assert "engine_breaker_opened" in [line["event"] for line in logs]
    told = await status_of(world)
    assert [one["up"] for one in told] == [False, True]
    assert "unavailable" in told[0]["error"]
    assert "4111" not in f"{logs} {told}"


def test_an_engines_address_bears_no_password():
    """It would stand in logs and metrics."""
    with pytest.raises(ValidationError, match="TUNEWHEEL_ENGINE_API_KEY") as caught:
        Settings(engine_url="http://10.0.0.1:8110,https://user:s3cret@h:1")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    "key", ["s3cret\n", "s3cret\r\nx-role: admin", " s3cret", "s3cret\0", "s3crét", "“s3cret”"]
)
def test_an_engines_key_that_fits_no_header_is_refused(key: str, monkeypatch: pytest.MonkeyPatch):
    """A file's line break would end the head of every request."""
    with pytest.raises(ValidationError, match="engine_api_key") as caught:
        Settings(engine_api_key=SecretStr(key))
    monkeypatch.setenv("TUNEWHEEL_ENGINE_API_KEY", key.replace("\0", "\n"))
    with pytest.raises(ValidationError, match="engine_api_key") as told:
        Settings()
    assert "s3cr" not in f"{caught.value}{told.value}"


@pytest.mark.parametrize("key", ["", "sk-aZ09_~!+/=."])
def test_an_engines_key_that_fits_a_header_is_taken(key: str):
    assert Settings(engine_api_key=SecretStr(key)).engine_api_key == SecretStr(key)
