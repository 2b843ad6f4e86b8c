"""Limits at the door of a gateway: what clients see, and what reaches the engine."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import redis.asyncio as redis_client
from structlog.testing import capture_logs
from tunewheel_runtime.identity.roles import Limits
from tunewheel_serve_gateway.limits.admission import Charge, rules_of, window_at
from tunewheel_serve_gateway.limits.counts import PAUSE_SECONDS, PREFIX, SharedCounts
from tunewheel_testing.waiting import until

HELLO: Any = [{"role": "user", "content": "hi"}]
NOW = 1_800_000_030.0


def keys(tmp_path: Path, **limits: dict[str, int]) -> dict[str, Any]:
    """Settings with a key ``k-<name>`` for each of ``limits``."""
    told = {
        name: {"sha256": hashlib.sha256(f"k-{name}".encode()).hexdigest(), "limits": own}
        for name, own in limits.items()
    }
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": told}))
    return {"identity": "required", "api_keys_file": file}


async def limited(make_world: Any, **settings: Any) -> Any:
    """Return a world in which it is always half past the same minute."""
    world = await make_world(**settings)
    world.declare()
    await world.serving(production="org/Tiny-Base")
    world.gateway.admission.clock = lambda: NOW
    return world


async def ask(world: Any, key: str, **body: Any) -> tuple[int, Any, dict[str, Any]]:
    headers = {"authorization": f"Bearer k-{key}"}
    async with await world.chat(headers=headers, **body) as response:
        return response.status, response.headers, await response.json()


async def test_the_official_client_is_told_of_its_limit(make_world: Any, tmp_path: Path):
    world = await limited(make_world, **keys(tmp_path, app={"requests_per_minute": 2}, other={}))
    client = openai.AsyncOpenAI(base_url=f"{world.url}/v1", api_key="k-app", max_retries=0)
    async with client:
        raw = client.chat.completions.with_raw_response
        for left in ("1", "0"):
            answer = await raw.create(model="desk", messages=HELLO)
            assert answer.headers["x-ratelimit-limit-requests"] == "2"
            assert answer.headers["x-ratelimit-remaining-requests"] == left
            assert answer.headers["x-ratelimit-reset-requests"] == "1m30s"
        with pytest.raises(openai.RateLimitError) as refused:
            await client.chat.completions.create(model="desk", messages=HELLO, stream=True)
        assert (refused.value.code, refused.value.type) == ("rate_limit_exceeded", "requests")
        assert refused.value.response.headers["retry-after"] == "60"
    assert len(world.engine.asked) == 2, "who is refused does not reach the engine"
    assert world.gateway.metrics.value("limits.refused") == 1
    assert (await ask(world, "other"))[0] == 200


async def test_tokens_count_as_the_engine_counts_them(make_world: Any, tmp_path: Path):
    world = await limited(
        make_world, **keys(tmp_path, app={"tokens_per_minute": 1_000, "tokens_per_day": 5_000})
    )
    world.engine.gate.clear()
    first = asyncio.create_task(ask(world, "app", max_tokens=900))
    await until(lambda: world.engine.asked)
    status, headers, answer = await ask(world, "app", max_tokens=900)
    assert (status, answer["error"]["code"]) == (429, "rate_limit_exceeded")
    assert answer["error"]["type"] == "tokens"
    world.engine.gate.set()
    status, headers, answer = await first
    left = int(headers["x-ratelimit-remaining-tokens"])
    assert 0 <= left <= 100
    used = answer["usage"]["total_tokens"]
    assert used < 10
    async with await world.chat(
        stream=True, headers={"authorization": "Bearer k-app"}, max_tokens=900
    ) as streamed:
        await streamed.read()
    world.engine.fail_with = (500, {"error": {"message": "boom"}}, {})
    assert (await ask(world, "app", max_tokens=900))[0] == 502
    world.engine.fail_with = None
    _, headers, _ = await ask(world, "app", max_tokens=900)
    assert int(headers["x-ratelimit-remaining-tokens"]) == left - 2 * used, "a failure costs nothing"


async def test_a_client_that_leaves_pays_for_what_was_said(make_world: Any, tmp_path: Path):
    world = await limited(make_world, **keys(tmp_path, app={"tokens_per_minute": 10_000}))
    world.engine.gate.clear()
    response = await world.chat(stream=True, headers={"authorization": "Bearer k-app"}, max_tokens=4_000)
    await response.content.readany()
    assert int(response.headers["x-ratelimit-remaining-tokens"]) < 6_000
    response.close()
    await until(lambda: world.engine.running == 0)
    world.engine.gate.set()

    async def left() -> int:
        now = int((await ask(world, "app", max_tokens=1))[1]["x-ratelimit-remaining-tokens"])
        return now if now >= 9_000 else 0

    assert await until(left) < 10_000 - 50, "the prompt of either, and the piece that came"


async def test_a_budget_that_is_used_up_is_told_as_openai_does(make_world: Any, tmp_path: Path):
    world = await limited(make_world, **keys(tmp_path, app={"tokens_per_month": 1_000}))
    long = {"text": "word " * 300, "max_tokens": 100}
    assert (await ask(world, "app", **long))[0] == 200
    status, headers, answer = await ask(world, "app", **long)
    assert (status, answer["error"]["code"], answer["error"]["type"]) == (429, *["insufficient_quota"] * 2)
    assert headers["x-should-retry"] == "false"


async def test_limits_of_the_file_count_as_soon_as_they_are_written(make_world: Any, tmp_path: Path):
    world = await limited(make_world, **keys(tmp_path, app={"requests_per_minute": 1}))
    assert [(await ask(world, "app"))[0] for _ in range(2)] == [200, 429]
    keys(tmp_path, app={"requests_per_minute": 100})
    async with asyncio.timeout(60):
        while (await ask(world, "app"))[0] != 200:
            await asyncio.sleep(0.05)
    assert int((await ask(world, "app"))[1]["x-ratelimit-remaining-requests"]) == 97, (
        "what was used stays used"
    )


async def test_gateways_without_redis_grant_their_shares(make_world: Any, tmp_path: Path):
    settings = keys(tmp_path, app={"requests_per_minute": 5})
    first = await limited(make_world, limits_replicas=2, **settings)
    second = await limited(make_world, beside=first, limits_replicas=2, **settings)
    answers = [(await ask(world, "app"))[0] for _ in range(4) for world in (first, second)]
    assert answers.count(200) == 4


class Redis:
    def __init__(self, port: int, process: subprocess.Popen[bytes]) -> None:
        self.url = f"redis://127.0.0.1:{port}"
        self._process = process

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """It takes connections and commands, and answers none."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Redis]:
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("no Redis is installed: apt-get install redis-server")
    with socket.socket() as reserved:  # while it is bound, the system gives its port to no other test
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        folder = tmp_path_factory.mktemp("redis")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        try:
            _until_it_answers(port)
            yield Redis(port, process)
        finally:
            process.kill()
            process.wait()


def _until_it_answers(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as client:
            client.sendall(b"PING\r\n")
            if client.recv(5) == b"+PONG":
                return
        assert time.monotonic() < deadline, "Redis did not start in 60 s"
        time.sleep(0.02)


UNHURRIED = 60.0
"""For Redis to answer, in tests where it does."""


async def test_two_gateways_over_one_redis_hold_one_limit(make_world: Any, tmp_path: Path, redis: Redis):
    settings = keys(tmp_path, pair={"requests_per_minute": 60, "tokens_per_minute": 60_000})
    settings |= {"limits_url": redis.url, "limits_timeout_seconds": UNHURRIED}
    first = await limited(make_world, **settings)
    second = await limited(make_world, beside=first, **settings)
    asked = [ask(world, "pair", max_tokens=100) for _ in range(45) for world in (first, second)]
    admitted = [status for status, _, _ in await asyncio.gather(*asked)].count(200)
    assert 57 <= admitted <= 60
    left = 0
    async with asyncio.timeout(60):
        while left < 60_000 - 60 * 20 - 200:  # until the tokens of both are settled, in Redis
            status, headers, _ = await ask(second, "pair", max_tokens=100)
            assert (status, headers["x-ratelimit-limit-requests"]) == (429, "60")
            left = int(headers["x-ratelimit-remaining-tokens"])


async def test_a_number_that_redis_cannot_add_does_not_turn_it_away(
    make_world: Any, tmp_path: Path, redis: Redis
):
    settings = keys(tmp_path, large={"tokens_per_day": 60_000})
    settings |= {"limits_url": redis.url, "limits_timeout_seconds": UNHURRIED}
    world = await limited(make_world, **settings)
    for tokens in (2**64 - 1, 2**63, 60_001):
        status, headers, answer = await ask(world, "large", max_tokens=tokens, n=16)
        assert (status, headers["x-should-retry"]) == (429, "false")
        assert "tokens_per_day is 60000" in answer["error"]["message"]
    status, headers, _ = await ask(world, "large", max_tokens=100)
    assert status == 200
    assert int(headers["x-ratelimit-remaining-tokens"]) > 59_000, "what is refused is not charged"
    assert world.gateway.metrics.value("limits.away") == 0


async def test_no_request_waits_for_a_redis_that_is_away(make_world: Any, tmp_path: Path, redis: Redis):
    settings = keys(tmp_path, away={"requests_per_minute": 5}, none={})
    settings |= {"limits_url": redis.url, "limits_replicas": 2}
    world = await limited(make_world, **settings)
    strict = await limited(make_world, beside=world, limits_when_away="refuse", **settings)
    with redis.stopped():
        assert [(await ask(world, "away"))[0] for _ in range(3)] == [200, 200, 429], "this gateway's share"
        assert world.gateway.metrics.value("limits.away") == 3
        status, _, answer = await ask(strict, "away")
        assert (status, answer["error"]["code"]) == (503, "unavailable")
        assert (await ask(strict, "none"))[0] == 200, "who has no limit needs no Redis"


async def test_installations_that_share_a_redis_count_apart(make_world: Any, tmp_path: Path, redis: Redis):
    """Both name a caller ``app``: a team's installation must not use up what another's may ask."""
    settings = keys(tmp_path, app={"tokens_per_day": 60_000})
    settings |= {"limits_url": redis.url, "limits_timeout_seconds": UNHURRIED}
    acme = await limited(make_world, topic_prefix="acme.", **settings)
    beside = await limited(make_world, beside=acme, topic_prefix="acme.", **settings)
    other = await limited(make_world, beside=acme, topic_prefix="acme.eu.", **settings)

    async def left(world: Any) -> int:
        _, headers, _ = await ask(world, "app", max_tokens=100)
        return int(headers["x-ratelimit-remaining-tokens"])

    first = await left(acme)
    assert await left(beside) < first, "gateways of one installation count together"
    assert await left(other) == first


async def test_refunds_made_during_an_outage_reach_redis_afterwards(redis: Redis):
    now = [0.0]
    shared = SharedCounts(redis.url, timeout_seconds=UNHURRIED, clock=lambda: now[0])
    (rule,) = rules_of(None, Limits(tokens_per_day=5_000), replicas=1)
    window = window_at("day", NOW)

    async def used(account: str, more: int = 0) -> int | None:
        found = await shared.add(account, [Charge(rule, window, more)])
        return None if found is None else found[0].current

    assert await used("late", 4_000) == 4_000
    with redis.stopped():
        shared._timeout = 0.05
        assert await used("other", 1) is None
        shared._timeout = UNHURRIED
        await shared.correct("late", [Charge(rule, window, -3_000)])
        now[0] += PAUSE_SECONDS
        await shared.correct("late", [Charge(rule, window, -990)])  # waits for no Redis that is away
    assert await used("other") is not None

    async def is_corrected() -> bool:
        return await used("late") == 10

    await until(is_corrected)
    await shared.close()


async def test_a_charge_that_redis_took_in_part_is_taken_back(redis: Redis):
    now = [0.0]
    shared = SharedCounts(redis.url, timeout_seconds=UNHURRIED, clock=lambda: now[0])
    rules = rules_of(None, Limits(tokens_per_day=5_000, tokens_per_month=50_000), replicas=1)
    charges = [Charge(rule, window_at(rule.period, NOW), 100) for rule in rules]
    month = f"{PREFIX}:part:tokens_per_month:{charges[1].window.number}"
    client = redis_client.Redis.from_url(redis.url)
    await client.rpush(month, "no number")
    assert await shared.add("part", charges) is None
    await client.delete(month)
    now[0] += PAUSE_SECONDS
    async with asyncio.timeout(60):
        while (found := await shared.add("part", [one._replace(amount=0) for one in charges])) is None or any(
            count.current for count in found
        ):
            await asyncio.sleep(0.005)
    await client.aclose()
    await shared.close()


async def test_an_outage_is_told_once_and_ends_by_itself(redis: Redis):
    now = [0.0]
    shared = SharedCounts(redis.url, timeout_seconds=UNHURRIED, clock=lambda: now[0])
    (rule,) = rules_of(None, Limits(requests_per_minute=5), replicas=1)
    charge = [Charge(rule, window_at("minute", NOW), 1)]
    with capture_logs() as logs:
        assert (await shared.add("outage", charge))[0].current == 1  # type: ignore[index]
        with redis.stopped():
            shared._timeout = 0.05
            assert await shared.add("outage", charge) is None
            now[0] += PAUSE_SECONDS
            assert await shared.add("outage", charge) is None
        shared._timeout = UNHURRIED
        assert await shared.add("outage", charge) is None, "it is left alone for a second"
        now[0] += PAUSE_SECONDS
        found = await shared.add("outage", charge)
    assert found is not None
    assert [entry["event"] for entry in logs] == ["limits_not_shared", "limits_shared_again"]
    await shared.close()
    closed = SharedCounts("redis://127.0.0.1:1", timeout_seconds=UNHURRIED)
    assert await closed.add("outage", charge) is None, "nobody listens there"
    await closed.close()
