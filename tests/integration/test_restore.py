"""The restore of docs/operations.md: another broker, another store, and an erasure that the copies lack.

RESTORE_TICKETS says how many tickets there are, RESTORE_BYTES how long each is. While they go through the
services, memory and processor time of each service are sampled after every tenth of the tickets.
``var/nightly/restore.json`` has the figures.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CommitFailedError
from deltalake import DeltaTable
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import ErasureRequested, TicketPublished
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_runtime.lag import read_lag
from tunewheel_testing.reading import read_records
from tunewheel_testing.specs import declared

from tests.conftest import start_broker

from .bus import Bus, process, until
from .verdicts import passed, trained

pytestmark = [pytest.mark.integration, pytest.mark.nightly("restore")]
TICKETS = int(os.environ.get("RESTORE_TICKETS", "1000"))
BYTES = int(os.environ.get("RESTORE_BYTES", "500"))
ANSWERED = 100
"""So many of the first tickets have an answer, and those that come late: versions stay small."""
SAMPLES = 10
LATE = 40
"""Tickets that come after the record table was copied, and again after the restore."""
REPEATED = {"erasure.requested", "erasure.completed", "dataset.requested", "dataset.versioned"}
"""Topics on which a restored wheel says more than the copied log: versions lose an erased person too."""
ABSENT = ("T-1", "T-2")
"""Tickets of the erased people: the first is erased before the log is copied, the second afterwards."""
PATIENCE = 3_600.0
FIGURES = Path("var/nightly/restore.json")
PROJECT = "restored"
SERVICES = ("ingest", "curate", "registry")
SPEC: dict[str, Any] = {
    "dataset": {
        "min_examples": 20,
        "build": {"min_new_records": 10_000_000, "quiet_seconds": 4, "quiet_min_records": 20},
    }
}


def is_answered(number: int) -> bool:
    return not ANSWERED <= number < TICKETS


def ticket(number: int, **changes: Any) -> Envelope[TicketPublished]:
    text = random.Random(number).randbytes((60 if is_answered(number) else BYTES) // 2).hex()
    fields: dict[str, Any] = {
        "project": PROJECT, "ticket_id": f"T-{number}", "customer": f"person-{number}",
        "body": " ".join(text[at : at + 6] for at in range(0, len(text), 6)),
    }  # fmt: skip
    if is_answered(number):
        fields |= {"validated_by": "m.okafor", "answer": {"category": "horn" if number % 2 else "bell"}}
    return new_event(TicketPublished.model_construct(**fields | changes), source="/test")


def erasure(number: int) -> Envelope[ErasureRequested]:
    data = ErasureRequested(
        project=PROJECT, erasure_id=f"letter-{number}", requested_by="privacy", customer=f"person-{number}"
    )
    return new_event(data, source="/test")


async def publish(bus: Bus, numbers: range) -> None:
    for first in range(numbers.start, numbers.stop, 500):
        await bus.publish(*(ticket(n) for n in range(first, min(first + 500, numbers.stop))))


@contextmanager
def services(kafka: str, store: Path) -> Iterator[tuple[str, dict[str, int]]]:
    """Run the services, each a process of its own. Yield where the registry's API is, and their ids."""
    api = free_port()
    own = {"TUNEWHEEL_CACHE_DIR": str(store.parent / "cache")}
    ports = {"registry": {"TUNEWHEEL_HTTP_PORT": str(api)}}
    with ExitStack() as stack:
        pids = {
            name: stack.enter_context(
                process(
                    f"tunewheel_{name}.main", kafka, store, log_of(store, name), **own, **ports.get(name, {})
                )
            ).pid
            for name in SERVICES
        }
        yield f"http://127.0.0.1:{api}/v1/projects/{PROJECT}/models", pids


def log_of(store: Path, service: str) -> Path:
    return store.parent / f"{store.name}-{service}.log"


def usage(pid: int) -> dict[str, float]:
    """Return the resident memory (MiB) and the processor seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    seconds = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return {"mib": round(int(fields[21]) * os.sysconf("SC_PAGE_SIZE") / 2**20, 1), "seconds": seconds}


@dataclass(frozen=True)
class Left:
    """What a wheel has acknowledged."""

    log: Counter[tuple[str, str]]
    """How often each event and dead letter is on the log: topic, and id."""
    records: pl.DataFrame
    models: Any

    @classmethod
    async def at(cls, kafka: str, store: Path, models: str) -> Left:
        """Wait until every group has read all, and return what is there."""
        options = {"bootstrap_servers": kafka}

        async def settled() -> bool:
            return not any(lag.behind for lag in await read_lag(options) if lag.hosts)

        await until(settled, patience=PATIENCE)
        names = [spec.name for spec in topics.TOPICS]
        names += [spec.dead_letter for spec in topics.TOPICS if spec.dead_letter_exists]
        found = Counter[tuple[str, str]]()
        async for record in read_records(options, names):
            found[record.position.topic, record.headers.get("ce_id", b"").decode()] += 1
        async with httpx.AsyncClient(timeout=60) as client:
            told = (await client.get(models)).raise_for_status().json()
        assert told, "an unknown project would be equal to itself"
        return cls(found, records(store), told)


def count(store: Path) -> int:
    return DeltaTable(str(store / "records")).count() if (store / "records/_delta_log").is_dir() else 0


async def filled(store: Path, rows: int) -> None:
    """Wait until the record table has so many rows."""

    async def has() -> bool:
        await asyncio.sleep(1)  # a look reads the table's log
        return count(store) == rows

    await until(has, f"{rows} rows in the record table", patience=PATIENCE)


def records(store: Path) -> pl.DataFrame:
    """Return source, id and a hash of the text of each record of the table."""
    rows = pl.scan_delta(str(store / "records")).select("source_id", "record_id", pl.col("input").hash())
    found = rows.sort("source_id").collect()
    assert found["source_id"].is_unique().all(), "a record counts twice"
    return found


def files(folder: Path) -> dict[str, str]:
    every = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in every}


async def read_erasures_again(kafka: str) -> None:
    """Set the groups that carry erasures out back to the first request."""
    place = TopicPartition(topics.ERASURE_REQUESTED.name, 0)
    for service in topics.ERASURE_REQUESTED.consumers:
        for group in topics.ERASURE_REQUESTED.groups_of(service):
            consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group, enable_auto_commit=False)
            await consumer.start()
            consumer.assign([place])

            async def committed(consumer: AIOKafkaConsumer = consumer) -> bool:
                with suppress(CommitFailedError):  # killed members hold the group until their session ends
                    await consumer.commit({place: 0})
                    return True
                return False

            await until(committed, f"the offset of {group}")
            await consumer.stop()


async def original(kafka: str, store: Path, copy: Path, samples: list[dict[str, Any]]) -> Left:
    """Fill a wheel, and copy the part of its store that holds offsets before its log."""
    async with Bus(kafka) as bus:
        with services(kafka, store) as (models, pids):
            await bus.publish(declared(PROJECT, **SPEC), trained(PROJECT, 1), passed(PROJECT, 1))
            await bus.publish(ticket(0, ticket_id="refused", validated_at="no date"))
            await bus.collect(topics.SERVING_DESIRED, 1, where=lambda e: bool(e.data.desired.routes))
            began = time.monotonic()
            for part in range(SAMPLES):
                done, more = (TICKETS * n // SAMPLES for n in (part, part + 1))
                await publish(bus, range(done, more))
                await filled(store, more)
                used = {name: usage(pid) for name, pid in pids.items()}
                samples.append({"tickets": more, "seconds": round(time.monotonic() - began, 1), **used})
                print(json.dumps(samples[-1]), flush=True)
            await bus.collect(topics.DATASET_VERSIONED, 1, patience=PATIENCE)
            shutil.copytree(store / "records", copy / "records")
            await bus.publish(erasure(1))
            await publish(bus, range(TICKETS, TICKETS + LATE))
            await bus.collect(topics.DATASET_VERSIONED, 2, patience=PATIENCE)
            await filled(store, TICKETS + LATE - 1)
            return await Left.at(kafka, store, models)


async def test_a_wheel_restored_elsewhere_is_the_same_and_an_erasure_that_the_copies_lack_comes_first(
    tmp_path: Path,
) -> None:
    store, copy = tmp_path / "store", tmp_path / "copy"
    samples: list[dict[str, Any]] = []
    broker = await asyncio.to_thread(start_broker, tmp_path / "kafka")
    try:
        before = await original(broker.bootstrap_servers, store, copy, samples)
    finally:
        broker.kill()  # A snapshot of its disk has what a killed broker leaves.
    size = 512 * sum(p.stat().st_blocks for at in (store, broker.data) for p in at.rglob("*"))
    began = time.monotonic()
    shutil.copytree(broker.data, tmp_path / "other/data")
    shutil.copytree(store, copy, ignore=shutil.ignore_patterns("records"), dirs_exist_ok=True)
    copied, made = time.monotonic() - began, files(store / "datasets")
    shutil.rmtree(store)
    shutil.rmtree(broker.data)
    assert files(copy / "datasets") == made
    assert count(copy) == TICKETS, "the copy is older than the log, and has an erased person"

    began = time.monotonic()
    with LocalKafka(tmp_path / "other", port=None) as other:
        kafka = other.bootstrap_servers
        assert kafka != broker.bootstrap_servers
        async with Bus(kafka) as bus:
            await bus.publish(erasure(2))  # from the letters that are kept apart from the log
            await read_erasures_again(kafka)
            with services(kafka, copy) as (models, _):
                wanted = before.records.filter(~pl.col("source_id").is_in(ABSENT))
                await bus.collect(
                    topics.ERASURE_COMPLETED, 2, where=lambda e: e.data.holder == "curate", patience=PATIENCE
                )
                await filled(copy, wanted.height)
                seconds = time.monotonic() - began
                print(json.dumps({"copied": copied, "restored": seconds}), flush=True)
                after = await Left.at(kafka, copy, models)
                assert after.records.equals(wanted)
                assert after.models == before.models
                assert not before.log - after.log, "an event or a dead letter is lost"
                assert {topic for topic, _ in after.log - before.log} == REPEATED
                (newest,) = await bus.collect(topics.DATASET_VERSIONED, 1, patience=PATIENCE)
                await publish(bus, range(TICKETS + LATE, TICKETS + 2 * LATE))
                await filled(copy, wanted.height + LATE)
    dataset = copy / "datasets" / newest.data.dataset_id
    examples = [pl.read_parquet(dataset / f"{part}.parquet") for part in ("train", "holdout")]
    answered = [f"T-{number}" for number in range(TICKETS + LATE) if is_answered(number)]
    assert {name for part in examples for names in part["record_ids"] for name in names} == set(
        wanted.filter(pl.col("source_id").is_in(answered))["record_id"]
    )
    FIGURES.parent.mkdir(parents=True, exist_ok=True)
    figures = {"copied_seconds": round(copied, 1), "seconds": round(seconds, 1)}
    figures |= {"tickets": TICKETS, "bytes": size, "events": sum(before.log.values()), "samples": samples}
    FIGURES.write_text(json.dumps(figures) + "\n", "utf-8")


async def test_a_record_table_that_was_copied_after_the_log_is_refused(tmp_path: Path) -> None:
    """The log's next records would get offsets that the record table counts as its own."""
    store = tmp_path / "store"
    broker = await asyncio.to_thread(start_broker, tmp_path / "kafka")
    try:
        kafka = broker.bootstrap_servers
        async with Bus(kafka) as bus:
            with services(kafka, store):
                await bus.publish(declared(PROJECT, **SPEC))
                await publish(bus, range(30))
                await filled(store, 30)
    finally:
        broker.kill()
    earlier = await asyncio.to_thread(start_broker, tmp_path / "earlier")
    log = tmp_path / "refused.log"
    try:
        with process("tunewheel_curate.main", earlier.bootstrap_servers, store, log) as refused:
            assert await asyncio.to_thread(refused.wait, PATIENCE) == 1
    finally:
        earlier.kill()
    assert "copied after the log" in log.read_text()
