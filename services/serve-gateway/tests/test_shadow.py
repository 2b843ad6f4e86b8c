from __future__ import annotations

from typing import Any

import pytest
from tunewheel_testing.waiting import until


async def test_answers_are_copied_to_the_shadow(world: Any):
    await world.desire(production=("desk-1", 100), shadow=("desk-2", 100))
    await world.serving(production="desk-1", shadow="desk-2")
    assert await world.said("hello", stream=False) == "desk-1: hello"
    events = {event.role.value: event for event in await world.completions(2)}
    assert events["shadow"].output == "desk-2: hello"
    assert events["shadow"].shadow_of == events["production"].completion_id
    copy_id = events["shadow"].completion_id
    assert copy_id != events["production"].completion_id
    assert world.gateway._ids.project_of(copy_id, ["desk"]) == "desk"
    assert not events["shadow"].streamed


async def test_a_streamed_answer_is_copied_whole(world: Any):
    await world.desire(production=("desk-1", 100), shadow=("desk-2", 100))
    await world.serving(shadow="desk-2")
    async with await world.chat(stream=True) as response:
        await response.read()
    await world.completions(2)
    assert "stream_options" not in world.engine.asked[-1]
    assert world.engine.asked[-1]["model"] == "desk-2"


async def test_a_pinned_request_is_not_copied(world: Any):
    await world.desire(production=("desk-1", 100), shadow=("desk-2", 100))
    await world.serving(shadow="desk-2")
    await world.said(model="desk-1")
    await world.said(model="desk")
    await world.completions(3)
    assert [body["model"] for body in world.engine.asked] == ["desk-1", "desk-1", "desk-2"]


async def test_copies_are_bounded_and_wait_for_nobody(make_world: Any):
    world = await make_world(shadow_concurrency=1, shadow_backlog=1)
    world.declare()
    await world.desire(production=("base-0", 100), shadow=("desk-2", 100))
    await world.serving(shadow="desk-2")
    world.engine.gated = "desk-2"
    world.engine.gate.clear()
    for _ in range(4):
        assert await world.said() == "org/Tiny-Base: hello"
    await until(lambda: world.gateway.metrics.value("shadow.dropped") == 2)
    world.engine.gate.set()
    await until(lambda: world.gateway.metrics.value("shadow.copied") == 2)


TOOLS = [{"type": "function", "function": {"name": "find", "description": "x" * 40_000}}]


@pytest.mark.parametrize(("text", "more"), [("x" * 40_000, {}), ("hello", {"tools": TOOLS})])
async def test_copies_of_large_requests_are_bounded_by_their_bytes(
    make_world: Any, text: str, more: dict[str, Any]
):
    world = await make_world(shadow_backlog_bytes=300_000)
    world.declare()
    await world.desire(production=("base-0", 100), shadow=("desk-2", 100))
    await world.serving(shadow="desk-2")
    world.engine.gated = "desk-2"
    world.engine.gate.clear()
    for _ in range(20):
        await (await world.chat(text, **more)).read()
    await until(lambda: world.gateway.metrics.value("shadow.dropped") >= 10)
    copies = 20 - world.gateway.metrics.value("shadow.dropped")
    assert copies >= 1
    world.engine.gate.set()
    await until(lambda: world.gateway.metrics.value("shadow.copied") == copies)
    await world.said()
    await until(lambda: world.gateway.metrics.value("shadow.copied") == copies + 1)


@pytest.mark.parametrize("after", [{}, {"shadow": ("desk-3", 100)}], ids=["no shadow", "another shadow"])
async def test_a_copy_that_waits_longer_than_its_stage_is_dropped(make_world: Any, after: dict[str, Any]):
    world = await make_world(shadow_concurrency=1)
    world.declare()
    await world.desire(production=("base-0", 100), shadow=("desk-2", 100))
    await world.serving(shadow="desk-2")
    world.engine.gated = "desk-2"
    world.engine.gate.clear()
    for _ in range(3):
        await world.said()
    await until(lambda: [body["model"] for body in world.engine.asked].count("desk-2") == 1)
    await world.desire(production=("desk-1", 100), **after)
    await world.serving(production="desk-1", **{role: model for role, (model, _) in after.items()})
    world.engine.gate.set()
    await until(lambda: world.gateway.metrics.value("shadow.dropped") == 2)
    assert [body["model"] for body in world.engine.asked].count("desk-2") == 1
    assert world.gateway.metrics.value("shadow.copied") == 1


async def test_a_shadow_that_breaks_is_told_and_harms_nobody(world: Any):
    await world.desire(production=("desk-1", 100), shadow=("desk-2", 100))
    await world.serving(shadow="desk-2")
    world.engine.gate.clear()
    async with await world.chat(stream=True) as response:
        await response.content.readany()
        world.engine.fail_with = (500, {"error": {"message": "boom"}}, {})
        world.engine.gate.set()
        await response.read()
    events = {event.role.value: event for event in await world.completions(2)}
    assert "boom" in events["shadow"].error
    assert events["production"].error is None


@pytest.mark.parametrize("status", [400, 429, 503])
async def test_an_engine_that_is_full_or_away_says_nothing_of_the_shadow(world: Any, status: int):
    await world.desire(production=("desk-1", 100), shadow=("desk-2", 100))
    await world.serving(shadow="desk-2")
    world.engine.gate.clear()
    async with await world.chat(stream=True) as response:
        await response.content.readany()
        world.engine.fail_with = (status, {"error": {"message": "not now"}}, {})
        world.engine.gate.set()
        await response.read()
    await until(lambda: world.gateway.metrics.value("shadow.dropped") == 1)
    world.engine.fail_with = None
    await world.said(model="desk-1")
    assert [event.role.value for event in await world.completions(2)] == ["production", "production"]
