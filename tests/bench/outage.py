"""Kafka stopped under load: what is lost, what fails, and what it costs the answers.

An open loop asks a gateway before a stub engine at a steady rate: as long with Kafka as without. Then Kafka
comes back, and every answer's completion must be on the log. Stub, gateway and broker are processes of their
own.

    make bench NAME=outage ARGS="--rate 500 --seconds 60"
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from gateway import KEY, STUB, Contender, body, declare, process, until_answered, write_keys
from report import write_report
from tunewheel_contracts import topics
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.reading import read_topics

PATIENCE_SECONDS = 300


class Load:
    """Requests at ``rate`` a second, whatever becomes of them."""

    def __init__(self, session: aiohttp.ClientSession, url: str, rate: float) -> None:
        self._session, self._url, self._rate = session, url, rate
        self.answered: list[str] = []
        self.failed = 0

    async def run(self, seconds: float) -> list[float]:
        """Return how long each answer took, from the moment at which it was due."""
        begin, taken = time.perf_counter(), list[float]()
        asking: list[asyncio.Task[None]] = []
        for n in range(int(self._rate * seconds)):
            due = begin + n / self._rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            asking.append(asyncio.create_task(self._ask(due, taken)))
        await asyncio.gather(*asking)
        return taken

    async def _ask(self, due: float, taken: list[float]) -> None:
        try:
            async with self._session.post(self._url, json=body("bench", stream=False)) as response:
                answer = await response.json()
                if response.status == 200:
                    self.answered.append(answer["id"])
                    taken.append(time.perf_counter() - due)
                    return
        except aiohttp.ClientError:
            pass
        self.failed += 1


async def logged(servers: str, wanted: set[str]) -> tuple[set[str], float]:
    """Return which of ``wanted`` are on the log, once all are or patience ends, and how long that took."""
    started = time.perf_counter()
    found: set[str] = set()
    while not wanted <= found and time.perf_counter() - started < PATIENCE_SECONDS:
        events = read_topics({"bootstrap_servers": servers}, (topics.INFERENCE_COMPLETED,))
        found = {event.data.completion_id async for event in events}
    return wanted & found, time.perf_counter() - started


def at(share: float, seconds: list[float]) -> float:
    return sorted(seconds)[min(len(seconds) - 1, int(share * len(seconds)))]


def processor_seconds(gateway: psutil.Process) -> float:
    times = gateway.cpu_times()
    return times.user + times.system


async def measure(
    url: str, kafka: LocalKafka, gateway: psutil.Process, rate: float, seconds: float
) -> dict[str, Any]:
    servers = kafka.bootstrap_servers
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(
        connector=connector, headers={"authorization": f"Bearer {KEY}"}
    ) as session:
        await until_answered(session, Contender(url, "bench", None))
        load = Load(session, url, rate)
        used = [processor_seconds(gateway)]
        with_kafka = await load.run(seconds)
        used.append(processor_seconds(gateway))
        kafka.stop()
        used.append(processor_seconds(gateway))
        without = await load.run(seconds)
        used.append(processor_seconds(gateway))
        kafka.start()
        found, caught_up = await logged(servers, set(load.answered))
    return {
        "answered": len(load.answered),
        "failed": load.failed,
        "lost": len(load.answered) - len(found),
        "p50_ms": {"with": round(at(0.5, with_kafka) * 1e3, 2), "without": round(at(0.5, without) * 1e3, 2)},
        "p99_ms": {
            "with": round(at(0.99, with_kafka) * 1e3, 2),
            "without": round(at(0.99, without) * 1e3, 2),
        },
        "p99_added_ms": round((at(0.99, without) - at(0.99, with_kafka)) * 1e3, 2),
        "cpu_share": {
            "with": round((used[1] - used[0]) / seconds, 3),
            "without": round((used[3] - used[2]) / seconds, 3),
        },
        "caught_up_seconds": round(caught_up, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=500.0)
    parser.add_argument("--seconds", type=float, default=60.0)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        kafka = LocalKafka(root / "kafka", port=free_port()).start()
        try:
            servers = kafka.bootstrap_servers
            asyncio.run(ensure_topics({"bootstrap_servers": servers}))
            asyncio.run(declare(servers, ObjectStore((root / "store").as_uri())))
            stub_port, port = free_port(), free_port()
            environment = {
                "TUNEWHEEL_BOOTSTRAP_SERVERS": servers,
                "TUNEWHEEL_STORE_URL": (root / "store").as_uri(),
                "TUNEWHEEL_CACHE_DIR": scratch,
                "TUNEWHEEL_ENGINE_URL": f"http://127.0.0.1:{stub_port}",
                "TUNEWHEEL_HTTP_PORT": str(port),
                "TUNEWHEEL_API_KEYS_FILE": str(write_keys(root)),
            }
            stub = process([*STUB, str(stub_port)], root / "stub.log")
            gateway = process(
                [sys.executable, "-m", "tunewheel_serve_gateway.main"], root / "gateway.log", **environment
            )
            with stub, gateway as child:
                url = f"http://127.0.0.1:{port}/v1/chat/completions"
                figures = asyncio.run(measure(url, kafka, child, asked.rate, asked.seconds))
        finally:
            kafka.stop()
    write_report(
        "outage",
        packages=("aiohttp", "starlette", "uvicorn", "aiokafka", "orjson"),
        contenders={"gateway": figures},
        ratios={"p99 without Kafka over with": figures["p99_ms"]["without"] / figures["p99_ms"]["with"]},
        rate=asked.rate,
        seconds=asked.seconds,
        load=os.getloadavg(),
    )


if __name__ == "__main__":
    main()
