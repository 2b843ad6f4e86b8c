"""A candidate in canary fails before its first token: the champion answers, and the log has the failure."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest
from tunewheel_testing.waiting import until

BOOM = (500, {"error": {"message": "boom"}}, {})
GARBLED = (200, {"choices": [{"message": None}]}, {})
FULL = (429, {"error": {"message": "full"}}, {"retry-after": "7"})
BASE_NAME = "org/Tiny-Base"


async def canary_of(make_world: Any, *, engines: int = 1, percent: int = 100, **settings: Any) -> Any:
    """A world whose candidate ``desk-2`` meets what ``fail_with`` and ``dies`` say, and the champion not."""
    values = {"reconcile_seconds": 3600} | settings
    world = await make_world(bases=(BASE_NAME,) * engines, **values)
    world.declare()
    await world.desire(production=("desk-1", 100 - percent), canary=("desk-2", percent))
    await until(lambda: all(set(one.adapters) == {"desk-1", "desk-2"} for one in world.engines))
    await until(lambda: all(e.ready >= {"desk-1", "desk-2"} for e in world.gateway.pool.endpoints))
    await world.serving(production="desk-1", canary="desk-2")
    for engine in world.engines:
        engine.falters = lambda body: body["model"] == "desk-2"
    return world


async def asked(world: Any, stream: bool, text: str = "hello", **more: Any) -> tuple[int, str, Any]:
    """Return the status, the text and the headers of an answer."""
    async with await world.chat(text, stream=stream, **more) as response:
        raw = await response.text()
        if response.status != 200:
            return response.status, raw, response.headers
        if not stream:
            return 200, json.loads(raw)["choices"][0]["message"]["content"], response.headers
        events = [json.loads(line[6:]) for line in raw.splitlines() if line.startswith("data: {")]
        said = [c["delta"].get("content") or "" for e in events for c in e.get("choices", ())]
        return 200, "".join(said), response.headers


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("how", "fault"), [(BOOM, "model"), (GARBLED, "engine"), ("dies", "engine"), (FULL, None)]
)
async def test_the_champion_answers_and_the_failure_is_logged_once(
    make_world: Any, stream: bool, how: Any, fault: str | None
):
    world = await canary_of(make_world)
    world.engine.dies, world.engine.fail_with = how == "dies", how if how != "dies" else None
    status, text, headers = await asked(world, stream, user="u-1")
    assert (status, text) == (200, "desk-1: hello")
    assert (headers["x-tunewheel-model"], headers["x-tunewheel-role"]) == ("desk-1", "production")
    done = {one.model_id: one for one in await world.completions(1 if fault is None else 2)}
    assert len(world.broker.of("inference.completed")) == len(done)
    answer = done["desk-1"]
    assert (answer.role.value, answer.pinned, answer.error) == ("production", True, None)
    if fault is not None:
        failure = done["desk-2"]
        assert (failure.role.value, failure.pinned, failure.fault) == ("canary", False, fault)
        assert (failure.output, failure.customer, failure.completion_id != answer.completion_id) == (
            "", "u-1", True,
        )  # fmt: skip
    metrics = world.gateway.metrics
    names = ("replaced", "answered", "failed")
    assert [metrics.value(f"completions.{name}") for name in names] == [1, 1, 0]


@pytest.mark.parametrize("stream", [False, True])
async def test_connections_that_are_lost_count_for_both_sides_of_a_canary(make_world: Any, stream: bool):
    world = await canary_of(make_world, percent=50, engine_breaker_failures=1000)
    world.engine.dies, world.engine.falters = True, lambda _: True
    answers = [await asked(world, stream, user=f"u-{n}") for n in range(30)]
    assert {status for status, _, _ in answers} == {503}
    events = await world.completions(30)
    assert {one.customer for one in events} == {f"u-{n}" for n in range(30)}
    assert {(one.model_id, one.role.value, one.pinned, one.fault) for one in events} == {
        ("desk-1", "production", False, "engine"), ("desk-2", "canary", False, "engine")
    }  # fmt: skip
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1", canary=None)
    assert (await asked(world, stream, user="u-later"))[0] == 503
    world.engine.dies = False
    assert (await asked(world, stream, user="u-last"))[0] == 200
    await until(lambda: world.broker.of("inference.completed")[-1].customer == "u-last")
    assert "u-later" not in {one.customer for one in world.broker.of("inference.completed")}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_candidate_that_fails_on_both_engines_is_replaced_on_one_of_them(
    make_world: Any, stream: bool
):
    world = await canary_of(make_world, engines=3)
    for engine in world.engines:
        engine.fail_with = BOOM
    assert (await asked(world, stream))[:2] == (200, "desk-1: hello")
    assert sorted(len(engine.asked) for engine in world.engines) == [0, 1, 2]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_that_ends_engines_reaches_two_of_four_in_a_canary_too(make_world: Any, stream: bool):
    world = await canary_of(make_world, engines=4)
    for engine in world.engines:
        engine.poison = "closed"
    status, text, headers = await asked(world, stream, "poison")
    assert (status, headers["x-should-retry"]) == (502, "false")
    assert "two engines were lost" in text
    assert sum(bool(engine.asked) for engine in world.engines) == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_if_the_champion_fails_too_the_client_gets_its_failure(make_world: Any, stream: bool):
    world = await canary_of(make_world)
    world.engine.fail_with = BOOM
    world.engine.first["hello"] = [FULL]
    status, text, headers = await asked(world, stream)
    assert (status, headers["retry-after"], "full" in text) == (429, "7", True)
    (failure,) = await world.completions()
    assert (failure.model_id, failure.fault) == ("desk-2", "model")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "refusal", ["This model's maximum context length is 4096 tokens", "no such thing as a seed"]
)
async def test_what_a_candidate_refuses_is_its_own_fault_if_the_champion_answers(
    make_world: Any, stream: bool, refusal: str
):
    world = await canary_of(make_world)
    world.engine.fail_with = (400, {"error": {"message": refusal}}, {})
    measured = list[tuple[str, str, str]]()
    world.gateway.metrics.observe = lambda name, seconds, **labels: (
        name == "completion.seconds"
        and (measured.append((labels["model"], labels["role"], labels["outcome"])))
    )
    assert (await asked(world, stream, user="u-1"))[:2] == (200, "desk-1: hello")
    done = {one.model_id: one for one in await world.completions(2)}
    answer, failure = done["desk-1"], done["desk-2"]
    assert (answer.pinned, answer.error) == (True, None)
    assert (failure.role.value, failure.pinned, failure.fault) == ("canary", False, "model")
    assert refusal in str(failure.error)
    assert sorted(measured) == [
        ("desk-1", "production", "answered"), ("desk-2", "canary", "replaced")
    ]  # fmt: skip
    names = ("replaced", "answered", "failed")
    assert [world.gateway.metrics.value(f"completions.{name}") for name in names] == [1, 1, 0]


@pytest.mark.parametrize("leaves", [True, False], ids=["client leaves", "log fails"])
async def test_a_stream_of_the_champion_is_closed_if_the_refusal_before_it_cannot_be_logged(
    make_world: Any, monkeypatch: pytest.MonkeyPatch, leaves: bool
):
    world = await canary_of(make_world)
    world.engine.fail_with = (400, {"error": {"message": "no such thing as a seed"}}, {})
    world.engine.gated = "desk-1"
    world.engine.gate.clear()
    log, logging = world.gateway.log, asyncio.Event()
    monkeypatch.setattr(type(log), "keep", keep := _Keep(logging, forever=leaves))
    asking = asyncio.create_task(world.chat("hello", stream=True))
    await logging.wait()
    if leaves:
        asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        (await asking).close()
    (event,) = await world.completions()
    assert event.model_id == "desk-1"
    await until(lambda: world.engine.cancelled == 1)
    await until(lambda: world.gateway.in_flight._all.requests == 0)
    assert keep.models == ["desk-2"]


class _Keep:
    """Stands for ``CompletionLog.keep`` of a disk that is slow, or that fails."""

    def __init__(self, asked: asyncio.Event, *, forever: bool) -> None:
        self._asked, self._forever = asked, forever
        self.models: list[str] = []

    async def __call__(self, exchange: Any) -> None:
        self.models.append(exchange.model_id)
        self._asked.set()
        if self._forever:
            await asyncio.Event().wait()
        raise OSError("no space left")


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_champion_refuses_too_is_the_clients_fault(make_world: Any, stream: bool):
    world = await canary_of(make_world)
    world.engine.fail_with = (400, {"error": {"message": "no such thing", "param": "seed"}}, {})
    world.engine.falters = lambda _: True
    assert (await asked(world, stream))[0] == 400
    assert [body["model"] for body in world.engine.asked] == ["desk-2", "desk-1"]
    events = {one.model_id: one for one in await world.completions(2)}
    assert {(one.role.value, one.fault) for one in events.values()} == {
        ("canary", "client"), ("production", "client")
    }  # fmt: skip


async def test_a_pinned_candidate_fails_in_front_of_who_asked_for_it(make_world: Any):
    world = await canary_of(make_world)
    world.engine.fail_with = BOOM
    for name in ("desk-2", "desk/challenger"):
        assert (await asked(world, False, model=name))[0] == 502
    assert {body["model"] for body in world.engine.asked} == {"desk-2"}


async def test_a_candidate_that_the_engine_has_lost_holds_nobody_up(make_world: Any):
    world = await canary_of(make_world)
    (engine,) = world.gateway.reconciler.engines.values()
    async with engine._one_pass:  # else a pass that is under way, or about to begin, could find it out
        world.gateway._reconciling.cancel()
    world.engine.slow_load = "desk-2"
    del world.engine.adapters["desk-2"]
    assert (await asked(world, False))[1] == "desk-1: hello"
    (event,) = await world.completions()
    assert (event.model_id, event.pinned) == ("desk-1", True)


async def test_no_time_is_left_for_the_champion_after_a_silence(make_world: Any):
    world = await canary_of(make_world, engine_first_byte_seconds=1.0)
    world.engine.gate.clear()
    assert (await asked(world, False))[0] == 504
    assert [body["model"] for body in world.engine.asked] == ["desk-2"]


async def test_the_champion_has_only_the_time_that_is_left(make_world: Any):
    world = await canary_of(make_world, engine_first_byte_seconds=2.0)
    world.engine.fail_with = BOOM
    world.engine.gate.clear()
    assert (await asked(world, False))[0] == 504
    events = {one.model_id: one for one in await world.completions(2)}
    assert (events["desk-1"].fault, events["desk-1"].cancelled) == ("engine", False)


async def test_a_heartbeat_does_not_name_a_candidate_that_may_be_replaced(make_world: Any):
    world = await canary_of(make_world, heartbeat_seconds=0.05)
    world.engine.gate_at = 0
    world.engine.gate.clear()
    async with await world.chat(stream=True) as response:
        assert "x-tunewheel-model" not in response.headers
        world.engine.gate.set()
        assert "desk-2" in await response.text()


async def test_no_client_sees_a_candidate_that_fails_three_of_ten_and_the_log_has_each(make_world: Any):
    world = await canary_of(make_world, engines=2, percent=50)
    for engine in world.engines:
        engine.fail_with = BOOM
        engine.falters = lambda body: body["model"] == "desk-2" and _number(body) % 10 < 3
    numbers = range(80)
    answers = [await asked(world, bool(n % 2), f"question {n}", user=f"u-{n}") for n in numbers]
    assert {status for status, _, _ in answers} == {200}
    of_candidate = [n for n, (_, text, _) in enumerate(answers) if text.startswith("desk-2")]
    events = await world.completions(len(numbers) + 1)
    await until(lambda: len({one.customer for one in world.broker.of("inference.completed")}) == len(numbers))
    events = world.broker.of("inference.completed")
    failed = [one for one in events if one.error is not None]
    assert failed
    assert len(events) == len(numbers) + len(failed)
    assert {(one.model_id, one.role.value, one.pinned, one.fault) for one in failed} == {
        ("desk-2", "canary", False, "model")
    }
    assert all(int(str(one.customer).removeprefix("u-")) % 10 < 3 for one in failed)
    compared = [one for one in events if not one.pinned]
    assert sum(one.model_id == "desk-2" for one in compared) == len(of_candidate) + len(failed)
    assert len({one.customer for one in compared}) == len(compared) == len(numbers)


def _number(body: dict[str, Any]) -> int:
    return int(body["messages"][-1]["content"].rsplit(" ", 1)[1])
