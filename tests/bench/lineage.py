"""A lineage, asked of a registry while a million completions lie on the log: seconds of start and queries.

The broker is real. Versions of a project, each with a model that was judged, lie on the log and in a store on
this disk; then completions are written. A registry starts, decides what becomes of the models, and is asked
by a record and by a model: first, when no version's file was read yet, and again. ``--completions 0`` says
what the completions themselves cost: nothing, as they are not read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import polars as pl
from aiokafka import AIOKafkaProducer
from report import write_report
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_contracts.topics import BY_NAME
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics
from tunewheel_registry.main import make_app
from tunewheel_registry.settings import Settings
from tunewheel_runtime.lifecycle import Lifecycle
from tunewheel_runtime.service import Service
from tunewheel_runtime.store import ObjectStore

EXAMPLES = Path(__file__).resolve().parents[2] / "contracts" / "examples"
PROJECT = "bench"
AGAIN = 5


def example(name: str) -> dict[str, Any]:
    return json.loads(sorted((EXAMPLES / name / "valid").glob("*.json"))[0].read_text("utf-8"))


def event(name: str, cause: Envelope[Any] | None = None, **changes: Any) -> Envelope[Any]:
    data = BY_NAME[name].event.model_validate(example(name) | {"project": PROJECT} | changes)
    return new_event(data, source="/bench", cause=cause)


async def version(store: ObjectStore, n: int, records: int) -> Envelope[Any]:
    """Store version ``n``, whose records are those of the version before and a tenth more."""
    first = n * records // 10
    numbers = range(first, first + records)
    rows = pl.DataFrame({
        "record_id": [f"rec-{r:020d}" for r in numbers], "source_event_id": [f"event-{r}" for r in numbers],
        "source_id": [f"source-{r:020d}" for r in numbers], "kind": ["ticket"] * records,
        "example_id": [f"ex-{r:020d}" for r in numbers],
    })  # fmt: skip
    buffer = BytesIO()
    rows.write_parquet(buffer)
    lineage = await store.put(f"datasets/ds-{n}/lineage.parquet", buffer.getvalue())
    manifest = DatasetManifest.model_validate(example("dataset-manifest") | {"lineage": lineage.model_dump()})
    ref = await store.put(f"datasets/ds-{n}/manifest.json", manifest.model_dump_json().encode())
    return event("dataset.versioned", dataset_id=f"ds-{n}", manifest=ref.model_dump())


async def turn(store: ObjectStore, n: int, records: int) -> list[Envelope[Any]]:
    """Return what the log says of version ``n`` and its model."""
    dataset, model_id = await version(store, n, records), f"{PROJECT}-{n:012x}"
    run = {"run_id": f"run-{n}", "dataset_id": f"ds-{n}"}
    adapter = example("train.completed")["adapter"] | {"model_id": model_id}
    trained = event("train.completed", dataset, adapter=adapter, **run)
    passed = event("eval.passed", trained, adapter=adapter, evaluation_id=f"evaluation-{n}", **run)
    return [dataset, trained, passed]


async def write(servers: str, events: list[Envelope[Any]], completions: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, linger_ms=20, max_batch_size=1 << 20)
    await producer.start()
    try:
        for told in events:
            record = told.to_kafka()
            await producer.send(
                record.topic, record.value, key=record.key, headers=list(record.headers.items())
            )
        record = event("inference.completed").to_kafka()
        headers = list(record.headers.items())
        for n in range(completions):
            await producer.send(record.topic, record.value, key=str(n).encode(), headers=headers)
        await producer.flush()
    finally:
        await producer.stop()


async def asked(service: Service, name: str) -> dict[str, float]:
    """Ask once, and then again; return both in seconds, and how many nodes were told."""
    took: list[float] = []
    nodes = 0
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{service.doors.http_port}", timeout=600
    ) as client:
        for _ in range(1 + AGAIN):
            began = time.monotonic()
            answer = await client.get(f"/v1/projects/{PROJECT}/lineage/{name}")
            took.append(time.monotonic() - began)
            assert answer.status_code == 200, answer.text
            nodes = len(answer.json()["nodes"])
    again = statistics.median(took[1:])
    return {"first_seconds": round(took[0], 3), "again_seconds": round(again, 3), "nodes": nodes}


async def decided(service: Service, model_id: str) -> None:
    """Wait until the registry has registered the last of the models."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.doors.http_port}") as client:
        while model_id not in (await client.get(f"/v1/projects/{PROJECT}/models")).text:
            await asyncio.sleep(0.2)


async def measure(servers: str, root: Path, versions: int, records: int) -> dict[str, dict[str, Any]]:
    """Start a registry and ask it."""
    places = {"store_url": (root / "store").as_uri(), "http_port": free_port(), "health_port": free_port()}
    service = make_app(Settings(bootstrap_servers=servers, identity="open", **places))
    began = time.monotonic()
    serving = asyncio.create_task(Lifecycle(service).serve())
    while not service.health.ready:
        assert not serving.done(), service.failure
        await asyncio.sleep(0.02)
    started = time.monotonic() - began
    newest = versions - 1
    try:
        await decided(service, f"{PROJECT}-{newest:012x}")
        return {
            "start of a registry": {"seconds": round(started, 2)},
            "by a record, forward": await asked(service, f"rec-{newest * records // 10:020d}"),
            "by a model, both ways": await asked(service, f"{PROJECT}-{newest:012x}"),
        }
    finally:
        service.stop()
        await serving


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--completions", type=int, default=1_000_000)
    parser.add_argument("--versions", type=int, default=50)
    parser.add_argument("--records", type=int, default=20_000, help="per version")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        store = ObjectStore((root / "store").as_uri())
        broker = await asyncio.to_thread(LocalKafka(root / "kafka", port=None).start)
        try:
            await ensure_topics({"bootstrap_servers": broker.bootstrap_servers})
            spec = example("project-spec") | {"project": PROJECT}
            events = [event("project.declared", spec=spec)]
            events += [e for n in range(options.versions) for e in await turn(store, n, options.records)]
            await write(broker.bootstrap_servers, events, options.completions)
            found = await measure(broker.bootstrap_servers, root, options.versions, options.records)
        finally:
            await asyncio.to_thread(broker.stop)
    for figures in found.values():
        figures |= vars(options)
    write_report("lineage", packages=("aiokafka", "polars", "obstore"), contenders=found, ratios={})


if __name__ == "__main__":
    asyncio.run(main())
