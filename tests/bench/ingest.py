"""Records per second through ingest, beside a raw aiokafka copy of the same messages.

Both read the same ``ticket.published`` log from the beginning and write every message to
``record.ingested`` on the same local broker, acknowledged by it; only ingest decodes, validates,
normalises and encodes. Run in turn, three times each; medians count.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from report import write_report
from tunewheel_contracts import topics
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.upstream import ProjectDeclared, TicketPublished
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_ingest.main import make_app
from tunewheel_ingest.settings import Settings
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.lifecycle import Lifecycle

COUNT = 20_000
ROUNDS = 3
BODY = "My charger blinks red since Monday and the locker at the station does not open any more. " * 2


class Timing(NamedTuple):
    """Seconds on the wall and on this process's processors."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Timing:
        return cls(time.perf_counter(), time.process_time())

    def since(self) -> Timing:
        now = Timing.now()
        return Timing(now.wall - self.wall, now.cpu - self.cpu)


def spec() -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "project": "bench",
            "base_model": "any/model",
            "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
        }
    )


async def fill(servers: str) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True)
    await producer.start()
    declared = new_event(ProjectDeclared(project="bench", spec=spec()), source="/bench").to_kafka()
    events = (
        TicketPublished(project="bench", ticket_id=f"T-{n}", subject="Charger", body=f"{BODY}{n}")
        for n in range(COUNT)
    )
    records = [declared, *(new_event(event, source="/bench").to_kafka() for event in events)]
    for record in records:
        headers = list(record.headers.items())
        await producer.send(record.topic, record.value, key=record.key, headers=headers)
    await producer.stop()


async def written(servers: str) -> int:
    consumer = AIOKafkaConsumer(topics.RECORD_INGESTED.name, bootstrap_servers=servers)
    await consumer.start()
    ends = await consumer.end_offsets(list(consumer.assignment()))
    await consumer.stop()
    return sum(ends.values())


async def until_written(servers: str, count: int) -> None:
    consumer = AIOKafkaConsumer(topics.RECORD_INGESTED.name, bootstrap_servers=servers)
    await consumer.start()
    partitions = list(consumer.assignment())
    while sum((await consumer.end_offsets(partitions)).values()) < count:
        await asyncio.sleep(0.02)
    await consumer.stop()


async def run_ingest(servers: str, group: str) -> Timing:
    service = make_app(Settings(bootstrap_servers=servers, store_url="memory://"))
    before = await written(servers)
    for subscriber in service.subscriptions.broker.subscribers:  # its own group: every round reads it all
        subscriber.group_id = f"{group}.{subscriber.group_id}"
    task = asyncio.create_task(Lifecycle(service).serve())
    while not service.health.ready:
        await asyncio.sleep(0.005)
    started = Timing.now()
    await until_written(servers, before + COUNT)
    spent = started.since()
    service.stop()
    await task
    return spent


async def run_raw(servers: str, group: str) -> Timing:
    consumer = AIOKafkaConsumer(
        topics.TICKET_PUBLISHED.name,
        bootstrap_servers=servers,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    producer = AIOKafkaProducer(bootstrap_servers=servers, enable_idempotence=True, max_batch_size=262_144)
    await producer.start()
    await consumer.start()
    started, copied = Timing.now(), 0
    while copied < COUNT:
        batches = await consumer.getmany(timeout_ms=100, max_records=2_000)
        futures = [
            await producer.send(topics.RECORD_INGESTED.name, r.value, key=r.key, headers=list(r.headers))
            for records in batches.values()
            for r in records
        ]
        if futures:
            await asyncio.gather(*futures)
            await consumer.commit()
            copied += len(futures)
    spent = started.since()
    await consumer.stop()
    await producer.stop()
    return spent


async def measure(servers: str) -> dict[str, list[Timing]]:
    await ensure_topics({"bootstrap_servers": servers})
    await fill(servers)
    seconds: dict[str, list[Timing]] = {"ingest": [], "raw_aiokafka": []}
    for n in range(ROUNDS):
        seconds["ingest"].append(await run_ingest(servers, f"bench-ingest-{n}"))
        seconds["raw_aiokafka"].append(await run_raw(servers, f"bench-raw-{n}"))
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch, LocalKafka(Path(scratch), port=None) as broker:
        seconds = asyncio.run(measure(broker.bootstrap_servers))
    walls = {name: statistics.median(t.wall for t in times) for name, times in seconds.items()}
    cpus = {name: statistics.median(t.cpu for t in times) for name, times in seconds.items()}
    write_report(
        "ingest",
        packages=("aiokafka", "faststream", "pydantic"),
        contenders={
            name: {
                "records_per_second": round(COUNT / walls[name]),
                "records_per_cpu_second": round(COUNT / cpus[name]),
                "wall_seconds": [round(t.wall, 3) for t in times],
            }
            for name, times in seconds.items()
        },
        ratios={
            "ingest_to_raw_aiokafka": walls["raw_aiokafka"] / walls["ingest"],
            "ingest_to_raw_aiokafka_cpu": cpus["raw_aiokafka"] / cpus["ingest"],
        },
        records=COUNT,
    )


if __name__ == "__main__":
    main()
