"""From a verdict to production: how long shadow and canary take, and how many answers they use up.

Customers ask ``--customers`` questions at a time until a model that passed its evaluation is in production.
Broker, registry, gateway and monitor are the real ones. The engine is a stub that has ``--rate`` answers a
second for all requests together, as a small engine has. So what counts is the number of answers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from report import write_report
from rollback import BASE, PATIENCE_SECONDS, PROJECT, passed, publish, stored_adapter
from tunewheel_contracts import topics
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.lifecycle import Stage
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.engine import FakeEngine
from tunewheel_testing.feed import EventFeed

STAGES = (Stage.SHADOW, Stage.CANARY, Stage.PRODUCTION)
ROLLOUT = {
    "shadow": {"enabled": True, "min_requests": 12, "margin": 0.3, "max_slowdown": 3, "max_label_changes": 1},
    "canary": {"percent": 50, "min_requests": 20, "margin": 0.2, "max_slowdown": 3},
}


class SmallEngine(FakeEngine):
    """Its requests share ``rate`` answers a second equally, so that more requests make each one slower."""

    def __init__(self, rate: float) -> None:
        super().__init__(answers_anything=True)
        self._rate = rate
        self._left: dict[int, float] = {}
        self._numbers = count()
        self._done = asyncio.Condition()

    async def work(self) -> None:
        before = time.perf_counter()
        while True:
            await asyncio.sleep(0.01)
            now = time.perf_counter()
            share = (now - before) * self._rate / max(1, len(self._left))
            before = now
            self._left = {number: left - share for number, left in self._left.items() if left > share}
            async with self._done:
                self._done.notify_all()

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        self._left[number := next(self._numbers)] = 1.0
        try:
            async with self._done:
                await self._done.wait_for(lambda: number not in self._left)
        finally:
            self._left.pop(number, None)
        return await super()._chat(request)


@contextmanager
def process(module: str, log: Path, environment: dict[str, str]):
    with log.open("wb") as stream:
        command = [sys.executable, "-m", module]
        child = subprocess.Popen(command, env=os.environ | environment, stdout=stream, stderr=stream)
    try:
        yield
    finally:
        child.terminate()
        child.wait(60)


async def rollout(servers: str, url: str, store: ObjectStore, customers: int) -> dict[str, Any]:
    adapter = await stored_adapter(store, BaseModelRef(name=BASE, revision="1"), 1)
    spec = ProjectSpec.model_validate(
        {
            "project": PROJECT,
            "base_model": BASE,
            "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
            "rollout": ROLLOUT,
        }
    )
    await publish(servers, new_event(ProjectDeclared(project=PROJECT, spec=spec), source="/bench"))
    async with (
        EventFeed(KafkaSettings(bootstrap_servers=servers)) as feed,
        httpx.AsyncClient(base_url=url, timeout=300) as client,
    ):
        numbers = count()

        async def customer() -> None:
            while True:
                question = {"role": "user", "content": f"Bike {next(numbers)} does not charge. What now?"}
                try:
                    answer = await client.post(
                        "/v1/chat/completions", json={"model": PROJECT, "messages": [question]}
                    )
                    answer.raise_for_status()
                except httpx.HTTPError:
                    await asyncio.sleep(0.2)

        asking = [asyncio.create_task(customer()) for _ in range(customers)]
        await feed.first(topics.INFERENCE_COMPLETED, patience=PATIENCE_SECONDS)
        began, ends, answers = time.perf_counter(), list[float](), list[int]()
        await publish(servers, passed(adapter, 1))
        for stage in STAGES:
            await feed.first(
                topics.MODEL_PROMOTED, lambda e, s=stage: e.data.to_stage is s, patience=PATIENCE_SECONDS
            )
            ends.append(time.perf_counter() - began)
            answers.append(len(feed.by_topic[topics.INFERENCE_COMPLETED.name]))
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
    completed = Counter(e.data.role.value for e in feed.by_topic[topics.INFERENCE_COMPLETED.name])
    for event in feed.by_topic[topics.ROLLOUT_JUDGED.name]:
        print(event.data.stage, event.data.verdict, *event.data.reasons, file=sys.stderr)
    return {
        "to_shadow_seconds": round(ends[0], 2),
        "shadow_seconds": round(ends[1] - ends[0], 2),
        "canary_seconds": round(ends[2] - ends[1], 2),
        "shadow_answers": answers[1] - answers[0],
        "canary_answers": answers[2] - answers[1],
        **{f"{role}_in_all": number for role, number in completed.items()},
    }


async def measured(customers: int, copies: int, rate: float) -> dict[str, Any]:
    async with AsyncExitStack() as stack:
        root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        broker = await asyncio.to_thread(LocalKafka(root / "kafka", port=None).start)
        stack.callback(broker.stop)
        servers, port = broker.bootstrap_servers, free_port()
        await ensure_topics({"bootstrap_servers": servers})
        store, engine = ObjectStore((root / "store").as_uri()), SmallEngine(rate)
        engine_url = await stack.enter_async_context(engine.serving())
        working = asyncio.create_task(engine.work())
        stack.callback(working.cancel)
        common = {
            "TUNEWHEEL_BOOTSTRAP_SERVERS": servers,
            "TUNEWHEEL_STORE_URL": store.url,
            "TUNEWHEEL_IDENTITY": "open",
            "TUNEWHEEL_ENGINE_URL": engine_url,
            "TUNEWHEEL_CACHE_DIR": str(root / "cache"),
            "TUNEWHEEL_SHADOW_CONCURRENCY": str(copies),
        }
        for name in ("registry", "monitor", "serve_gateway"):
            ports = (port if name == "serve_gateway" else free_port(), free_port())
            own = dict(zip(("TUNEWHEEL_HTTP_PORT", "TUNEWHEEL_HEALTH_PORT"), map(str, ports), strict=True))
            stack.enter_context(process(f"tunewheel_{name}.main", root / f"{name}.log", common | own))
        return await rollout(servers, f"http://127.0.0.1:{port}", store, customers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--customers", type=int, default=12)
    parser.add_argument("--copies", default="2,8", help="shadow copies at a time, separated by commas")
    parser.add_argument("--rate", type=float, default=2.0)
    asked = parser.parse_args()
    found: dict[str, Any] = {}
    for copies in map(int, asked.copies.split(",")):
        found[f"{copies} copies"] = asyncio.run(measured(asked.customers, copies, asked.rate))
        print(copies, found[f"{copies} copies"], file=sys.stderr, flush=True)
    write_report(
        "promotion",
        packages=("aiokafka",),
        contenders=found,
        ratios={},
        customers=asked.customers,
        rate=asked.rate,
    )


if __name__ == "__main__":
    main()
