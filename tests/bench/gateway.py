"""What the gateway adds to a request: the same engine stub, asked directly and through the gateway.

Stub, gateway and broker are processes of their own; this process is the client, a closed loop of 1 or 16.
Contenders take turns within each round; medians over rounds count. All share this machine's processors, so
requests per second say little in themselves; milliseconds added per request, and the gateway's processor time
per request (completion log included), are what counts.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from aiokafka import AIOKafkaProducer
from report import write_report
from tunewheel_cli.kafka.broker import LocalKafka
from tunewheel_cli.kafka.ports import free_port
from tunewheel_cli.topics import ensure_topics
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.serving import RouteRole
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_serve_gateway.exchange import Exchange
from tunewheel_serve_gateway.spool import Spool

STUB = Path(__file__).resolve().parents[1] / "integration" / "engine_stub.py"
KEY = "k-bench"
REQUESTS = 600
ROUNDS = 3
TEXT = "My charger blinks red since Monday and the locker at the station does not open any more. " * 2


def spec() -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "project": "bench",
            "base_model": "any/model",
            "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
        }
    )


async def declare(servers: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    record = new_event(ProjectDeclared(project="bench", spec=spec()), source="/bench").to_kafka()
    headers = list(record.headers.items())
    await producer.send_and_wait(record.topic, record.value, key=record.key, headers=headers)
    await producer.stop()


@contextmanager
def process(command: list[str], log: Path, **environment: str) -> Iterator[psutil.Process]:
    with log.open("wb") as stream:
        child = subprocess.Popen(command, env=os.environ | environment, stdout=stream, stderr=stream)
    try:
        yield psutil.Process(child.pid)
    finally:
        child.terminate()
        child.wait(60)


async def until_answered(session: aiohttp.ClientSession, url: str, model: str) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                async with session.post(url, json=body(model, stream=False)) as response:
                    if response.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.05)


def body(model: str, *, stream: bool) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": TEXT}]}
    return asked | ({"stream": True, "stream_options": {"include_usage": True}} if stream else {})


async def measure(
    session: aiohttp.ClientSession, url: str, asked: dict[str, Any], *, concurrency: int
) -> list[float]:
    """Return the seconds that each of ``REQUESTS`` took."""
    left = iter(range(REQUESTS))
    seconds: list[float] = []

    async def client() -> None:
        for _ in left:
            started = time.perf_counter()
            async with session.post(url, json=asked) as response:
                assert response.status == 200, await response.text()
                await response.read()
            seconds.append(time.perf_counter() - started)

    await asyncio.gather(*(client() for _ in range(concurrency)))
    return seconds


def processor_seconds(child: psutil.Process) -> float:
    times = child.cpu_times()
    return times.user + times.system


async def compare(urls: dict[str, tuple[str, str]], gateway: psutil.Process) -> dict[str, dict[str, Any]]:
    figures: dict[str, dict[str, Any]] = {}
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"authorization": f"Bearer {KEY}"}
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
        for url, model in urls.values():
            await until_answered(session, url, model)
        for stream in (False, True):
            for concurrency in (1, 16):
                for name, (url, model) in urls.items():
                    asked, taken, used = body(model, stream=stream), [], []
                    for _ in range(ROUNDS):
                        before = processor_seconds(gateway)
                        started = time.perf_counter()
                        seconds = await measure(session, url, asked, concurrency=concurrency)
                        wall = time.perf_counter() - started
                        used.append((processor_seconds(gateway) - before) / REQUESTS)
                        taken.append((statistics.median(seconds), sorted(seconds)[-REQUESTS // 20], wall))
                    shape = f"{'stream' if stream else 'plain'} x{concurrency}"
                    p50, p95, wall = (statistics.median(column) for column in zip(*taken, strict=True))
                    figures[f"{name} {shape}"] = {
                        "p50_ms": round(p50 * 1000, 3),
                        "p95_ms": round(p95 * 1000, 3),
                        "requests_per_second": round(REQUESTS / wall, 1),
                        "gateway_cpu_ms": round(statistics.median(used) * 1000, 3)
                        if name == "gateway"
                        else None,
                    }
    return figures


def spool_microseconds(*, together: int, completions: int = 4_000) -> float:
    """Return the processor time that one completion costs on its way over the disk, ``together`` at once."""
    one = Exchange("bench", "chatcmpl-" + "0" * 32, "m", RouteRole.PRODUCTION, (("user", TEXT),))
    one.output = TEXT * 4
    best = float("inf")
    with tempfile.TemporaryDirectory() as scratch:
        spool = Spool(Path(scratch))
        for _ in range(5):
            started = time.process_time()
            for _ in range(completions // together):
                for segment in [spool.append(one) for _ in range(together)]:
                    spool.acknowledge(segment)
            best = min(best, time.process_time() - started)
        spool.close()
    return best / completions * 1e6


def write_keys(folder: Path) -> Path:
    """Write as many keys as a large company has applications, ``KEY`` among them."""
    sums = [hashlib.sha256(key.encode()).hexdigest() for key in (KEY, *map(str, range(999)))]
    path = folder / "keys.json"
    path.write_text(json.dumps({"keys": {f"app-{n}": {"sha256": one} for n, one in enumerate(sums)}}))
    return path


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        broker = LocalKafka(root / "kafka", port=None).start()
        try:
            servers = broker.bootstrap_servers
            asyncio.run(ensure_topics({"bootstrap_servers": servers}))
            asyncio.run(declare(servers))
            stub_port, port = free_port(), free_port()
            environment = {
                "TUNEWHEEL_BOOTSTRAP_SERVERS": servers,
                "TUNEWHEEL_STORE_URL": (root / "store").as_uri(),
                "TUNEWHEEL_CACHE_DIR": scratch,
                "TUNEWHEEL_ENGINE_URL": f"http://127.0.0.1:{stub_port}",
                "TUNEWHEEL_HTTP_PORT": str(port),
                "TUNEWHEEL_IDENTITY": "required",
                "TUNEWHEEL_API_KEYS_FILE": str(write_keys(root)),
            }
            stub = process([sys.executable, str(STUB), str(stub_port)], root / "stub.log")
            gateway = process(
                [sys.executable, "-m", "tunewheel_serve_gateway.main"], root / "gateway.log", **environment
            )
            with stub, gateway as child:
                urls = {
                    "direct": (f"http://127.0.0.1:{stub_port}/v1/chat/completions", "any/model"),
                    "gateway": (f"http://127.0.0.1:{port}/v1/chat/completions", "bench"),
                }
                figures = asyncio.run(compare(urls, child))
        finally:
            broker.stop()
    shapes = [name.removeprefix("direct ") for name in figures if name.startswith("direct ")]
    added = {
        s: round(figures[f"gateway {s}"]["p50_ms"] - figures[f"direct {s}"]["p50_ms"], 3) for s in shapes
    }
    write_report(
        "gateway",
        packages=("aiohttp", "starlette", "uvicorn", "aiokafka", "orjson"),
        contenders=figures,
        ratios={
            f"gateway p50 over direct, {s}": figures[f"gateway {s}"]["p50_ms"]
            / figures[f"direct {s}"]["p50_ms"]
            for s in shapes
        },
        requests_per_round=REQUESTS,
        rounds=ROUNDS,
        added_ms_p50=added,
        spool_us={n: round(spool_microseconds(together=n), 1) for n in (1, 16)},
    )


if __name__ == "__main__":
    main()
