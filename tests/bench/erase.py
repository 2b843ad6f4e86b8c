"""Where the texts of erased people are left: a scan of the store, the caches and Kafka's segments.

People with a text of their own (a canary) come in six ways: a ticket that is published twice, a ticket that
is published again for another customer, a document, an example, a correction, and a ticket that ingest
refuses. Others quote a canary in their conversation; such a ticket is erased by its id. The services make
records, an index and a dataset version of them. Then all canaries are erased, and the log's retention runs as
it does days later. At last the store is restored from a copy of before the erasures, and their requests are
read again. Files are read as their formats, since compressed bytes hide a text.

    make bench NAME=erase ARGS="--people 100"
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.record import MemoryRecords
from report import write_report
from tunewheel_contracts import topics
from tunewheel_contracts.erasures import HOLDERS
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import DatasetVersioned
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.upstream import (
    DocumentPublished,
    ErasureRequested,
    ExamplePublished,
    FeedbackReceived,
    TicketPublished,
)
from tunewheel_contracts.formats.dataset import ChatMessage
from tunewheel_contracts.identity import content_id
from tunewheel_curate.records.table import RecordTable
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.topic_configs import set_configs
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.retention import Retention
from tunewheel_runtime.service import Service
from tunewheel_testing.reading import read_topics
from tunewheel_testing.specs import declared

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.integration.bus import Bus, running, until

PROJECT = "erase"
WAYS = ("republished", "renamed", "document", "example", "correction", "refused", "quoted")
SERVICES = ("ingest", "curate", "eval", "monitor", "serve_gateway", "index")
QUICK = {
    "log.retention.check.interval.ms": "100",
    "log.initial.task.delay.ms": "0",
    "log.segment.delete.delay.ms": "0",
}
BYSTANDERS = 60
OFFSETS = (".index", ".timeindex")
"""Files of Kafka that hold offsets and times alone."""
PATIENCE, SETTLE_SECONDS = 3_600.0, 5.0
DELETED = [topic for topic in topics.TOPICS if topic.deleted_by]
Found = Counter[str]


def canary(number: int) -> str:
    return f"zq{number:05d}canaryqz"


def ticket(ticket_id: str, text: str, customer: str, **more: Any) -> Envelope[TicketPublished]:
    words = " ".join(content_id("w", [ticket_id, place], digits=6) for place in range(10))
    words = f"{words}: {text}"
    answer = {
        "answer": {"category": "horn" if ticket_id.endswith(tuple("13579")) else "bell"},
        "validated_by": "m.okafor",
    }
    data = TicketPublished.model_construct(
        project=PROJECT, ticket_id=ticket_id, body=words, customer=customer, **(answer | more)
    )
    return new_event(data, source="/bench")


def published(number: int) -> list[Envelope[Any]]:
    """Return the events that bring the canary ``number``."""
    name, word, way = f"person-{number}", canary(number), WAYS[number % len(WAYS)]
    if way == "document":
        data = DocumentPublished(
            project=PROJECT, document_id=f"{name}.md", content=f"# Door {number}\n\n{name} says {word}."
        )
        return [new_event(data, source="/bench")]
    if way == "example":
        data = ExamplePublished(
            project=PROJECT, example_id=f"E-{number}", input=f"Is {word} a horn?", group=name,
            output={"category": "horn"}, validated_by="m.okafor",
        )  # fmt: skip
        return [new_event(data, source="/bench")]
    if way == "correction":
        data = FeedbackReceived(
            project=PROJECT, feedback_id=f"F-{number}", completion_id=f"C-{number}", customer=name,
            rating="down", messages=(ChatMessage(role="user", content=f"What of {word}?"),), output="horn",
            correction={"category": "bell"},
        )  # fmt: skip
        return [new_event(data, source="/bench")]
    if way == "quoted":
        said = (ChatMessage(role="user", content=f"{name} wrote: {word}"),)
        return [ticket(f"T-{number}", f"see above {number}", f"other-{number}", thread=said)]
    if way == "refused":
        return [ticket(f"T-{number}", word, name, validated_at="no date")]
    first = ticket(f"T-{number}", word, name)
    if way == "renamed":
        return [ticket(f"T-{number}", word, f"wrong-{number}"), first]
    return [first, ticket(f"T-{number}", word, name)]


def erased(number: int) -> Envelope[ErasureRequested]:
    way = WAYS[number % len(WAYS)]
    subject = {"document": {"source_id": f"person-{number}.md"}, "quoted": {"source_id": f"T-{number}"}}
    data = ErasureRequested(
        project=PROJECT, erasure_id=f"letter-{number}", requested_by="privacy",
        **subject.get(way, {"customer": f"person-{number}"}),
    )  # fmt: skip
    return new_event(data, source="/bench")


def texts_in(file: Path) -> Iterator[bytes]:
    """Yield the content of a file as its format holds it, decompressed."""
    data = file.read_bytes()
    yield data
    if data[:4] == b"PAR1":
        yield pl.read_parquet(file).write_ndjson().encode()
    elif data[:2] == b"\x1f\x8b":
        yield gzip.decompress(data)
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(file) as parts:
            yield from map(parts.read, parts.namelist())
    elif file.suffix == ".log" and file.parent.name[-1:].isdigit():
        batches = MemoryRecords(data)
        while batches.has_next():
            for record in batches.next_batch():
                yield b" ".join((record.key or b"", record.value or b""))


def scan(folders: dict[str, Path], words: Iterable[str]) -> Found:
    """Count by place the canaries that one of its files holds. The places of Kafka are topics."""
    wanted, held = [word.encode() for word in words], dict[str, set[bytes]]()
    for name, folder in folders.items():
        for file in (file for file in folder.rglob("*") if file.is_file() and file.suffix not in OFFSETS):
            parts = file.relative_to(folder).parts
            of = parts[0].rpartition("-")[0] if name == "kafka" else parts[0]
            place = held.setdefault(f"{name}/{of}", set())
            for text in texts_in(file):
                place |= {word for word in wanted if word in text}
    return Counter({place: len(found) for place, found in held.items() if found})


def made(name: str, servers: str, folder: Path) -> Any:
    import importlib

    package = f"tunewheel_{name}"
    own: Any = importlib.import_module(f"{package}.settings").Settings
    places = {"store_url": (folder / "store").as_uri(), "cache_dir": folder / "cache"}
    quick = {"index_quiet_seconds": 0.2} if name == "index" else {}
    return importlib.import_module(f"{package}.main").make_app(
        own(bootstrap_servers=servers, **places, **quick)
    )


async def newest(servers: str, topic: Any, kind: Any) -> list[Any]:
    events = read_topics({"bootstrap_servers": servers}, (topic,))
    return [event.data async for event in events if isinstance(event.data, kind)]


async def measure(people: int, folder: Path, broker: LocalKafka) -> dict[str, Any]:
    servers, words = broker.bootstrap_servers, [canary(number) for number in range(people)]
    folders = {"store": folder / "store", "cache": folder / "cache", "kafka": broker.data}
    spec = {
        "retrieval": {},
        "dataset": {
            "min_examples": 20,
            "erase_versions": True,
            "build": {"min_new_records": 10_000, "quiet_seconds": 4, "quiet_min_records": 20},
        },
    }
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(Bus(servers))
        await bus.publish(declared(PROJECT, **spec))
        async with all_running(servers, folder) as services:
            for number in range(BYSTANDERS):
                await bus.publish(ticket(f"B-{number}", f"bystander {number * 7919}", f"by-{number}"))
            for number in range(people):
                for event in published(number):
                    await bus.publish(event)
            await until(lambda: is_settled(servers, people), patience=PATIENCE)
            shutil.copytree(folder / "store", folder / "backup")
            found: dict[str, Any] = {"published": await asyncio.to_thread(scan, folders, words)}
            began = time.monotonic()
            await bus.publish(*(erased(number) for number in range(people)))
            proofs = people * len(HOLDERS)
            events = await bus.collect(topics.ERASURE_COMPLETED, proofs, patience=PATIENCE)
            found["seconds"] = round(time.monotonic() - began, 1)
            found["records in curate's proofs"] = sum(
                event.data.records for event in events if event.data.holder == "curate"
            )
            await asyncio.sleep(SETTLE_SECONDS)
            found["erased"] = await asyncio.to_thread(scan, folders, words)
            table = RecordTable(str(folder / "store" / "records"))

            async def held(partition: int) -> int:
                return await asyncio.to_thread(table.reached, partition)

            for topic in DELETED:
                (owner,) = (one for one in services if one.name == topic.deleted_by)
                kept = Retention(
                    owner.settings,
                    owner.store,
                    topic,
                    days=7,
                    warn=owner.health.warn,
                    failed=owner.fail,
                    held=held if owner.name == "curate" else None,
                )
                await kept.sweep(datetime.now(UTC) + timedelta(days=8))
            await close_segments(servers, bus)

            async def freed() -> bool:
                found["days later"] = left = await asyncio.to_thread(scan, folders, words)
                return not any(f"kafka/{topic.name}" in left for topic in DELETED)

            await until(freed, patience=300)
        shutil.rmtree(folder / "store")
        shutil.move(folder / "backup", folder / "store")
        found["restored"] = await asyncio.to_thread(scan, folders, words)
        await read_again(servers)
        async with all_running(servers, folder):
            await bus.collect(topics.ERASURE_COMPLETED, 2 * proofs, patience=PATIENCE)
            await asyncio.sleep(SETTLE_SECONDS)
            found["erased again"] = await asyncio.to_thread(scan, folders, words)
        return found


@asynccontextmanager
async def all_running(servers: str, folder: Path) -> AsyncIterator[list[Service]]:
    services = [made(name, servers, folder) for name in SERVICES]
    async with AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(running(service))
            assert service.health.ready, service.health.state()
        yield services


async def is_settled(servers: str, people: int) -> bool:
    """Return whether there are a dataset version, and an index of all documents."""
    versions = await newest(servers, topics.DATASET_VERSIONED, DatasetVersioned)
    indexes = await newest(servers, topics.INDEX_VERSIONED, IndexVersioned)
    documents = sum(WAYS[number % len(WAYS)] == "document" for number in range(people))
    return bool(versions) and bool(indexes) and indexes[-1].counts.documents >= documents


async def read_again(servers: str) -> None:
    """Set the groups that carry erasures out back to the first request, as after a restore."""
    place = TopicPartition(topics.ERASURE_REQUESTED.name, 0)
    for service in topics.ERASURE_REQUESTED.consumers:
        for group in topics.ERASURE_REQUESTED.groups_of(service):
            await commit(servers, group, {place: 0})


async def commit(servers: str, group: str, offsets: dict[TopicPartition, int]) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
    await consumer.start()
    consumer.assign(list(offsets))
    await consumer.commit(offsets)
    await consumer.stop()


async def close_segments(servers: str, bus: Bus) -> None:
    """Close the segments of what records are deleted from, as a day and a record do."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    deleted = [*(topic.name for topic in DELETED), *topics.ERASED_LETTERS]
    await set_configs(admin, {name: {"segment.ms": "1"} for name in deleted})
    partitions = await admin.describe_topics(deleted)
    await admin.close()
    for topic in partitions:
        for part in topic["partitions"]:
            await bus._producer.send_and_wait(topic["topic"], b"{}", key=b"k", partition=part["partition"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, default=100)
    people = parser.parse_args().people
    os.environ["TUNEWHEEL_IDENTITY"] = "open"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with LocalKafka(folder / "kafka", port=None, properties=QUICK) as broker:
            asyncio.run(ensure_topics({"bootstrap_servers": broker.bootstrap_servers}))
            found = asyncio.run(measure(people, folder, broker))
    write_report(
        "erase", packages=("deltalake", "polars", "aiokafka"), contenders=found, ratios={}, people=people
    )


if __name__ == "__main__":
    main()
