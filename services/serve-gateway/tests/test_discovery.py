"""Engines behind a name come and go while the gateway answers."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from tunewheel_serve_gateway import fleet
from tunewheel_serve_gateway.settings import Settings
from tunewheel_testing.engine import FakeEngine
from tunewheel_testing.waiting import until

NAME = "dns+http://engines:8000"


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[FakeEngine] | None]:
    """The engines behind each name; None: the name server does not answer."""
    names: dict[str, list[FakeEngine] | None] = {NAME: []}

    def addresses_behind(url: str) -> frozenset[str]:
        engines = names[f"dns+{url}"]
        if engines is None:
            raise OSError("Temporary failure in name resolution")
        return frozenset(engine.url for engine in engines)

    monkeypatch.setattr(fleet, "addresses_behind", addresses_behind)
    return names


@pytest.fixture
async def engines() -> Any:
    some = [FakeEngine() for _ in range(2)]
    for engine in some:
        await engine.start()
    yield some
    for engine in some:
        await engine.stop()


@pytest.fixture
async def world(make_world: Any, behind: Any, engines: Any) -> Any:
    """A gateway that knows its engines by a name alone, and has found the first."""
    behind[NAME] = engines[:1]
    made = await make_world(bases=(), engine_url=NAME)
    made.declare()
    await made.desire(production=("desk-1", 100))
    await made.serving(production="desk-1")
    return made


async def test_an_engine_that_comes_has_its_adapters_loaded_and_is_asked(
    world: Any, behind: Any, engines: Any
):
    assert await world.said() == "desk-1: hello"
    behind[NAME] = engines
    await until(lambda: [e.ready >= {"desk-1"} for e in world.gateway.pool.endpoints] == [True, True])
    for place in (0, 1):
        await world.said(*world.texts(place))
    assert all(engine.asked for engine in engines)
    assert len(world.gateway.status(None)["engine"]["endpoints"]) == 2


@pytest.mark.parametrize("told", [{}, {"parent": None, "root": "org/Tiny-Base-2"}, {"dtype": "float32"}])
async def test_where_the_last_engine_of_a_base_goes_no_other_base_takes_its_adapters(
    world: Any, behind: Any, engines: Any, told: dict[str, Any]
):
    first, second = engines
    second.base, second.told_of_base = "org/Tiny-Base-2", told
    behind[NAME] = [first, second]
    await looks(world)
    behind[NAME] = [second]
    await looks(world)
    reconciler = world.gateway.reconciler
    await until(lambda: "desk-1" in reconciler.failures)
    assert "the engine serves org/Tiny-Base-2" in reconciler.failures["desk-1"].reason
    async with await world.chat() as response:
        assert response.status == 503
    async with await world.chat(model="desk/base") as response:
        assert response.status == 503
    assert (second.loads, second.asked) == ([], [])
    behind[NAME] = [first, second]
    await looks(world)
    await world.serving(production="desk-1")
    assert await world.said() == "desk-1: hello"


async def test_an_engine_that_goes_finishes_its_answer_and_is_asked_no_more(
    world: Any, behind: Any, engines: Any
):
    first, second = engines
    first.gate.clear()
    answer = asyncio.create_task(world.said())
    await until(lambda: first.running)
    behind[NAME] = [second]
    await looks(world)
    (endpoint,) = world.gateway.pool.endpoints
    assert endpoint.url == second.url
    first.gate.set()
    assert await answer == "desk-1: hello"
    first.asked.clear()
    await until(lambda: "desk-1" in second.adapters)
    assert await world.said() == "desk-1: hello"
    assert not first.asked
    await until(lambda: not world.gateway.reconciler._fleet._parting, "its connections to be closed")


async def looks(world: Any) -> None:
    """An address is let go once it was missing twice."""
    for _ in range(2):
        await world.gateway.reconciler._fleet.discover()


async def test_a_name_server_s_trouble_takes_no_engine_away_and_is_told(world: Any, behind: Any):
    behind[NAME] = None
    await looks(world)
    assert await world.said() == "desk-1: hello"
    assert "Temporary failure" in world.warnings["engines_not_found"]
    assert "Temporary failure" in world.gateway.status(None)["engine"]["error"]
    behind[NAME] = []
    await looks(world)
    async with await world.chat() as response:
        assert response.status == 503
    assert "has no address" in world.warnings["engines_not_found"]


async def test_one_look_without_an_address_changes_nothing(world: Any, behind: Any, engines: Any):
    own = world.gateway._reconciling  # Its looks would come between those of the test.
    own.cancel()
    await asyncio.gather(own, return_exceptions=True)
    fleet = world.gateway.reconciler._fleet
    before = world.gateway.pool.endpoints
    for some in ([], engines[:1]) * 2:
        behind[NAME] = some
        await fleet.discover()
    assert world.gateway.pool.endpoints == before
    assert world.warnings["engines_not_found"] is None


async def test_no_engine_loses_anything_to_one_that_was_never_heard_of(
    make_world: Any, behind: Any, engines: Any
):
    """The engines do not name their base, and the second does not listen yet."""
    engines[0].told_of_base = {"parent": "unknown"}
    await engines[1].stop()
    behind[NAME] = engines[:1]
    world = await make_world(bases=(), engine_url=NAME)
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    behind[NAME] = engines
    await world.gateway.reconciler._fleet.discover()
    for _ in range(3):
        await world.gateway.reconciler.reconcile()
    assert list(engines[0].adapters) == ["desk-1"]
    assert await world.said() == "desk-1: hello"


async def test_without_an_engine_no_file_is_deleted(world: Any, behind: Any, tmp_path: Any):
    behind[NAME] = []
    await looks(world)
    os.utime(tmp_path / "adapters" / ".laid" / "desk-1", (0, 0))
    await world.gateway.reconciler._remove_unneeded()
    assert (tmp_path / "adapters" / "desk-1").is_dir()


async def test_a_version_on_an_engine_that_went_is_loaded_by_another(world: Any, behind: Any, engines: Any):
    from .test_on_demand import register

    await register(world, "desk-7")
    assert await world.said(model="desk-7") == "desk-7: hello"
    behind[NAME] = engines[1:]
    await looks(world)
    await until(lambda: "desk-1" in engines[1].adapters)
    assert await world.said(model="desk-7") == "desk-7: hello"
    assert "desk-7" in engines[1].adapters


async def test_an_engine_that_is_listed_too_is_one_engine(make_world: Any, behind: Any, engines: Any):
    behind[NAME] = engines
    made = await make_world(bases=(), engine_url=f"{engines[0].url},{NAME}")
    await made.gateway.reconciler.look(timeout_seconds=60)
    assert [e.url for e in made.gateway.pool.endpoints] == [engine.url for engine in engines]


@pytest.mark.parametrize(
    "url",
    [
        "dns+https://vllm:8000",
        "dns+ftp://vllm",
        "vllm:8000",
        "dns+http://vllm:abc",
        "dns+http://vllm:99999",
        "dns+http://:8000",
        "dns+http:vllm:8000",
        "dns+http://vllm..svc:8000",
    ],
)
def test_a_name_that_cannot_be_asked_is_refused(url: str):
    with pytest.raises(ValueError, match="engine_url"):
        Settings(engine_url=url)
