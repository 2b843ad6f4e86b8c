"""What is in flight at a gateway is limited, for all callers together and for each."""

from __future__ import annotations

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from tunewheel_testing.waiting import until


def keys(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "keys.json"
    names = {name: {"sha256": hashlib.sha256(f"k-{name}".encode()).hexdigest()} for name in ("a", "b")}
    file.write_text(json.dumps({"keys": names}))
    return {"identity": "required", "api_keys_file": file}


def as_key(name: str) -> dict[str, str]:
    return {"authorization": f"Bearer k-{name}"}


async def make_desk(make_world: Any, **settings: Any) -> Any:
    world = await make_world(**settings)
    world.declare()
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    world.engine.gate.clear()
    return world


@pytest.mark.parametrize(
    ("limit", "text"), [({"max_in_flight": 4}, "hi"), ({"max_in_flight_bytes": 20_000}, "é" * 700)]
)
@pytest.mark.parametrize("stream", [False, True])
async def test_more_than_may_be_in_flight_is_told_to_come_again(
    make_world: Any, tmp_path: Path, limit: dict[str, int], text: str, stream: bool
):
    world = await make_desk(make_world, **keys(tmp_path), **limit)
    asking = [asyncio.create_task(world.chat(text, headers=as_key(name), stream=stream)) for name in "aaab"]
    for one in asyncio.as_completed(asking):
        refused = await one
        if refused.status != 200:
            break
    assert (refused.status, refused.headers["retry-after"]) == (429, "2")
    error = (await refused.json())["error"]
    assert (error["code"], error["type"]) == ("rate_limit_exceeded", "requests")
    await until(lambda: len(world.engine.asked) == 3)  # The other key has its share.
    world.engine.gate.set()
    answers = [one for one in await asyncio.gather(*asking) if one.status == 200]
    assert len([await one.read() for one in answers]) == 3
    await until(lambda: world.gateway.in_flight._all.requests == 0)
    assert (world.gateway.in_flight._all.bytes, world.gateway.in_flight._by_caller) == (0, {})
    assert (await world.chat(headers=as_key("a"))).status == 200


async def test_a_body_in_chunks_counts_as_the_largest_until_it_is_there(make_world: Any):
    world = await make_desk(make_world, max_in_flight_bytes=3 << 19, max_body_bytes=1 << 20)
    sent = asyncio.Event()

    async def chunks() -> Any:
        yield b'{"model": "desk", '
        await sent.wait()
        yield b'"messages": [{"role": "user", "content": "hi"}]}'

    url = f"{world.url}/v1/chat/completions"
    asking = [asyncio.create_task(world.session.post(url, data=chunks())) for _ in range(2)]
    (refused,), _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    assert refused.result().status == 429
    sent.set()
    await until(lambda: len(world.engine.asked) == 1)
    assert world.gateway.in_flight._all.bytes < 100
    world.engine.gate.set()
    assert sorted([(await one).status for one in asking]) == [200, 429]


@pytest.mark.parametrize(
    "more",
    [
        {"n": 16, "max_tokens": 4096, "top_logprobs": 20},
        {"n": 16, "max_completion_tokens": 4096, "top_logprobs": 1},
        {"n": 2, "max_tokens": 4096, "top_logprobs": 20},
        {"n": 16, "max_tokens": 4096, "top_logprobs": 20, "stream": True},
    ],
)
async def test_more_log_probabilities_than_an_answer_may_have_are_refused(world: Any, more: dict[str, Any]):
    refused = await world.chat(logprobs=True, **more)
    error = (await refused.json())["error"]
    assert (refused.status, error["param"], error["code"]) == (400, "top_logprobs", "invalid_value")
    assert all(name in error["message"] for name in ("n *", "max_tokens", "top_logprobs"))
    assert not world.engine.asked
    assert (await world.chat(logprobs=True, n=1, max_tokens=4096, top_logprobs=20)).status == 200
    assert (await world.chat(n=16, max_tokens=4096)).status == 200


async def test_log_probabilities_to_come_count_as_bytes_in_flight(make_world: Any):
    world = await make_desk(make_world, max_in_flight_bytes=10 << 20)
    asking = [
        asyncio.create_task(world.chat(logprobs=True, top_logprobs=20, max_tokens=4096)) for _ in range(3)
    ]
    done, waiting = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
    while len(done) < 2:
        more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        done |= more
    assert {task.result().status for task in done} == {429}
    assert (await world.chat("plain", stream=True)).status == 200
    world.engine.gate.set()
    assert [(await one).status for one in waiting] == [200]


async def test_an_answer_that_never_ends_is_given_up(world: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tunewheel_serve_gateway.upstream.connection.LONGEST_ANSWER", 5_000)
    assert (await world.chat("x" * 1_000)).status == 200
    refused = await world.chat("x" * 6_000)
    assert (refused.status, (await refused.json())["error"]["code"]) == (502, "engine_error")
    world.engine.fail_with = (400, {"error": {"message": "x" * 6_000}}, {})
    assert (await world.chat()).status == 502
