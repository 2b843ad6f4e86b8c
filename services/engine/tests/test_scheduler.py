"""Requests wait, join, leave, are turned away, and are told when the engine breaks."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import aclosing

import pytest
from tunewheel_engine.engine import Engine, load_engine
from tunewheel_engine.errors import EngineFailed, Overloaded
from tunewheel_generation.generation import Generation
from tunewheel_testing.waiting import until

PROMPT = [5, 9, 33, 70, 101, 7, 250, 12]


@pytest.fixture
async def running(engine: Engine):
    engine.scheduler.start(asyncio.get_running_loop())
    yield engine
    await asyncio.to_thread(engine.scheduler.stop)


@pytest.fixture
def may_step(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    return steps_of(engine, monkeypatch)


def steps_of(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """While it is clear, requests join and leave, and none comes further: who runs is found running."""
    (lane,) = engine.scheduler._lanes.values()
    stepping, step = threading.Event(), lane._step

    def step_if_told() -> None:
        if stepping.is_set():
            step()
        else:
            time.sleep(0.001)

    monkeypatch.setattr(lane, "_step", step_if_told)
    return stepping


def endless() -> Generation:
    return Generation(PROMPT, 100, ignore_eos=True)


async def collect(engine: Engine, generation: Generation) -> list[int]:
    async with aclosing(engine.start(generation)) as steps:
        return [step.token.id async for step in steps]


async def test_requests_together_get_what_they_get_alone(running: Engine) -> None:
    prompts = [PROMPT[:cut] for cut in range(1, 9)][:5]
    alone = [await collect(running, Generation(prompt, 20, ignore_eos=True)) for prompt in prompts]
    together = await asyncio.gather(
        *(collect(running, Generation(prompt, 20, ignore_eos=True)) for prompt in prompts)
    )
    assert together == alone
    assert len({tuple(tokens) for tokens in alone}) > 1


async def test_a_prompt_longer_than_one_reading(running: Engine) -> None:
    prompt = (PROMPT * 10)[:75]
    whole = await collect(running, Generation(prompt, 10, ignore_eos=True))
    beside = asyncio.create_task(collect(running, endless()))
    assert await collect(running, Generation(prompt, 10, ignore_eos=True)) == whole
    await beside


async def test_a_full_queue_turns_away_and_recovers(running: Engine, may_step: threading.Event) -> None:
    room = running.settings.max_batch + running.settings.max_queue
    requests = [endless() for _ in range(room)]
    streams = [running.start(one) for one in requests]
    with pytest.raises(Overloaded) as caught:
        running.start(endless())
    assert caught.value.retry_after >= 1
    await until(lambda: running.scheduler.running == running.settings.max_batch)
    for one in requests:
        one.cancel()
    for stream in streams:
        await stream.aclose()
    await until(lambda: running.scheduler.running + running.scheduler.waiting == 0)
    may_step.set()
    assert len(await collect(running, endless())) == 100


async def test_leaving_frees_the_row_and_the_others_go_on(running: Engine) -> None:
    alone = await collect(running, endless())
    stays = asyncio.create_task(collect(running, endless()))
    async with aclosing(running.start(endless())) as steps:
        async for _ in steps:
            break
    await until(lambda: running.scheduler.running <= 1)
    assert await stays == alone


async def test_a_cancelled_request_that_waits_is_forgotten(
    running: Engine, may_step: threading.Event
) -> None:
    first = [asyncio.create_task(collect(running, endless())) for _ in range(running.settings.max_batch)]
    await until(lambda: running.scheduler.running == running.settings.max_batch)
    waiting = endless()
    steps = running.start(waiting)
    waiting.cancel()
    await steps.aclose()
    await until(lambda: running.scheduler.waiting == 0)
    may_step.set()
    await asyncio.gather(*first)
    await until(lambda: running.scheduler.running + running.scheduler.waiting == 0)


async def test_the_context_ends_an_answer(running: Engine) -> None:
    tokens = await collect(running, Generation(PROMPT, 10_000, ignore_eos=True))
    assert len(tokens) + len(PROMPT) == running.max_context


async def test_the_end_token_ends_an_answer(running: Engine, monkeypatch) -> None:
    tokens = await collect(running, endless())
    lane = next(iter(running.scheduler._lanes.values()))
    monkeypatch.setattr(lane._runner, "end_tokens", frozenset({tokens[4]}))
    cut = tokens.index(tokens[4]) + 1
    assert await collect(running, Generation(PROMPT, 100)) == tokens[:cut]


async def test_when_generation_breaks_everyone_is_told(settings, monkeypatch) -> None:
    broke = asyncio.Event()
    engine = load_engine(settings, on_failure=broke.set)
    may_step = steps_of(engine, monkeypatch)
    engine.scheduler.start(asyncio.get_running_loop())
    requests = [asyncio.create_task(collect(engine, endless())) for _ in range(4)]
    await until(lambda: engine.scheduler.running == 3)
    (lane,) = engine.scheduler._lanes.values()

    def read(*_: object) -> None:
        raise RuntimeError("the kernel is unhappy")

    monkeypatch.setattr(lane._runner, "read", read)
    may_step.set()
    results = await asyncio.gather(*requests, return_exceptions=True)
    assert all(isinstance(result, EngineFailed) for result in results)
    async with asyncio.timeout(60):
        await broke.wait()
    assert not engine.scheduler.healthy
    with pytest.raises(EngineFailed):
        engine.start(endless())


@pytest.mark.usefixtures("may_step")
async def test_stopping_tells_those_under_way(engine: Engine) -> None:
    engine.scheduler.start(asyncio.get_running_loop())
    request = asyncio.create_task(collect(engine, endless()))
    await until(lambda: engine.scheduler.running == 1)
    await asyncio.to_thread(engine.scheduler.stop)
    with pytest.raises(EngineFailed, match="stopping"):
        await request
