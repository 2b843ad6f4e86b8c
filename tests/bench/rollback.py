"""From a person's word to the first restored answer: broker, registry, gateway and engine are the real ones.

Two adapters of random weights on the bundled base. A command promotes the second, a command rolls it back; a
client asks the gateway for one token after the other. Seconds are counted from before the command is
published until an answer names the model that is to serve. The adapter that comes back is on the gateway's
disk and out of the engine.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from aiokafka import AIOKafkaProducer
from report import write_report
from safetensors.numpy import save
from tunewheel_basemodel.locate import locate_base_model
from tunewheel_contracts.cache import cache_dir
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import EvalPassed
from tunewheel_contracts.events.lifecycle import ModelCommanded
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.run import AdapterRef, BaseModelRef
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.model_commands import command

BASE = "HuggingFaceTB/SmolLM2-135M-Instruct"
LAYERS, WIDTH, RANK = 30, 576, 16
PROJECT = "bench"
PATIENCE_SECONDS = 600.0
SHA = "0" * 64


async def stored_adapter(store: ObjectStore, base: BaseModelRef, n: int) -> AdapterRef:
    random = np.random.default_rng(n)
    weights: dict[str, Any] = {}
    for layer in range(LAYERS):
        name = f"base_model.model.model.layers.{layer}.self_attn.o_proj"
        weights[f"{name}.lora_A.weight"] = random.normal(0, 0.1, (RANK, WIDTH)).astype(np.float32)
        weights[f"{name}.lora_B.weight"] = random.normal(0, 0.03, (WIDTH, RANK)).astype(np.float32)
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": BASE, "r": RANK,
        "lora_alpha": 2 * RANK, "target_modules": ["o_proj"],
    }  # fmt: skip
    model_id = f"{PROJECT}-{n:012x}"
    path = f"adapters/{model_id}"
    files = (
        await store.put(f"{path}/adapter_config.json", json.dumps(config).encode()),
        await store.put(f"{path}/adapter_model.safetensors", save(weights)),
    )
    values = {"model_id": model_id, "path": path, "files": files, "base": base, "method": "lora"}
    return AdapterRef.model_validate(values)


def passed(adapter: AdapterRef, n: int) -> Envelope[EvalPassed]:
    artifact = {"path": f"datasets/ds-{n}/manifest.json", "sha256": SHA, "size_bytes": 1}
    values = {
        "project": PROJECT, "run_id": f"run-{n}", "dataset_id": f"ds-{n}", "dataset": artifact,
        "adapter": adapter, "scorecard": artifact, "criteria_sha256": SHA, "contestants": (), "checks": (),
    }  # fmt: skip
    return new_event(EvalPassed.model_validate(values), source="/bench")


def declared() -> Envelope[ProjectDeclared]:
    spec = ProjectSpec.model_validate(
        {
            "project": PROJECT,
            "base_model": BASE,
            "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
        }
    )
    return new_event(ProjectDeclared(project=PROJECT, spec=spec), source="/bench")


async def publish(servers: str, *events: Envelope[Any]) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers)
    await producer.start()
    try:
        for event in events:
            record = event.to_kafka()
            headers = list(record.headers.items())
            await producer.send_and_wait(record.topic, record.value, key=record.key, headers=headers)
    finally:
        await producer.stop()


@contextmanager
def process(module: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    with log.open("wb") as stream:
        child = subprocess.Popen(
            [sys.executable, "-m", module], env=os.environ | environment, stdout=stream, stderr=stream
        )
    try:
        yield
    finally:
        child.terminate()
        child.wait(60)


async def answered_by(client: httpx.AsyncClient, model_id: str) -> int:
    """Return how many requests were answered by another model, or refused, before ``model_id`` answered."""
    asked = {"model": PROJECT, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    others = 0
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                answer = await client.post("/v1/chat/completions", json=asked)
                if answer.status_code == 200 and answer.json()["model"] == model_id:
                    return others
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            others += 1


async def order(servers: str, client: httpx.AsyncClient, action: str, model_id: str, serves: str) -> float:
    """Command ``action``; return the seconds until ``serves`` answers."""
    data = ModelCommanded(
        project=PROJECT, model_id=model_id, action=action, reason="bench", request=str(time.time_ns())
    )
    started = time.perf_counter()
    told = asyncio.create_task(
        command({"bootstrap_servers": servers}, new_event(data, source="/bench"), timeout_seconds=60)
    )
    await answered_by(client, serves)
    seconds = time.perf_counter() - started
    answer = await told
    assert answer.outcome == "done", answer.as_json()
    return seconds


async def turns(servers: str, url: str, store: ObjectStore, rounds: int) -> dict[str, list[float]]:
    base = locate_base_model(BASE, cache_dir=cache_dir())
    ref = BaseModelRef(name=BASE, revision=base.revision)
    first, second = [await stored_adapter(store, ref, n) for n in (1, 2)]
    await publish(servers, declared(), passed(first, 1))
    seconds: dict[str, list[float]] = {"promotion": [], "rollback": []}
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await answered_by(client, first.model_id)
        await publish(servers, passed(second, 2))
        for _ in range(rounds):
            promoted = await order(servers, client, "promote", second.model_id, second.model_id)
            seconds["promotion"].append(promoted)
            restored = await order(servers, client, "rollback", second.model_id, first.model_id)
            seconds["rollback"].append(restored)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        root = Path(scratch)
        broker = LocalKafka(root / "kafka", port=None).start()
        stack.callback(broker.stop)
        servers, engine_port, port = broker.bootstrap_servers, free_port(), free_port()
        asyncio.run(ensure_topics({"bootstrap_servers": servers}))
        store = ObjectStore((root / "store").as_uri())
        common = {
            "TUNEWHEEL_BOOTSTRAP_SERVERS": servers,
            "TUNEWHEEL_STORE_URL": store.url,
            "TUNEWHEEL_IDENTITY": "open",
        }
        own = {
            "engine": {
                "TUNEWHEEL_HTTP_PORT": str(engine_port),
                "TUNEWHEEL_HEALTH_PORT": str(free_port()),
                "TUNEWHEEL_ADAPTER_ROOTS": json.dumps([str(root / "cache" / "adapters")]),
                "TUNEWHEEL_CACHE_DIR": str(cache_dir()),
            },
            "registry": {"TUNEWHEEL_HTTP_PORT": str(free_port())},
            "serve_gateway": {
                "TUNEWHEEL_HTTP_PORT": str(port),
                "TUNEWHEEL_ENGINE_URL": f"http://127.0.0.1:{engine_port}",
                "TUNEWHEEL_CACHE_DIR": str(root / "cache"),
            },
        }
        for name, environment in own.items():
            stack.enter_context(process(f"tunewheel_{name}.main", root / f"{name}.log", common | environment))
        seconds = asyncio.run(turns(servers, f"http://127.0.0.1:{port}", store, rounds))
    write_report(
        "rollback",
        packages=("aiokafka", "aiohttp", "transformers"),
        contenders={
            name: {
                "median_seconds": round(statistics.median(taken), 3),
                "longest_seconds": round(max(taken), 3),
                "times": len(taken),
            }
            for name, taken in seconds.items()
        },
        ratios={},
    )


if __name__ == "__main__":
    main()
