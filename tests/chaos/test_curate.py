"""Curate killed with -9 in the middle of its work: the same dataset, no record doubled, no process left."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import (
    BuildReason,
    DatasetRequested,
    DatasetVersioned,
    RecordIngested,
    RecordKind,
)
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.principal import Trust
from tunewheel_contracts.pseudonyms import Pseudonyms
from tunewheel_contracts.topics import TopicSpec
from tunewheel_curate.pipeline import build
from tunewheel_curate.records.log import GROUP, rows_of
from tunewheel_curate.records.table import RecordTable
from tunewheel_curate.versions.versioning import dataset_id_of, rows_sha256, under_pseudonyms
from tunewheel_runtime.partitions import group_backlog
from tunewheel_runtime.service import Delivery, Position
from tunewheel_testing.specs import declared, small_spec

from ..integration.bus import Bus, until
from ..integration.held import FOLDER as HELD_IN
from ..integration.held import held_service
from .reaper import is_alive

pytestmark = [pytest.mark.chaos, pytest.mark.nightly("kills")]

PROJECT = "chaos"
COUNT = 200
PATIENCE = 300.0
BUILD = {"min_examples": 20, "build": {"min_new_records": COUNT, "quiet_seconds": None}}


def records(first: int = 0) -> Iterator[Envelope[RecordIngested]]:
    """Records that differ in most words, so that all of them become examples."""
    for number in range(first, first + COUNT):
        words = " ".join(content_id("w", [number, place], digits=6) for place in range(10))
        data = RecordIngested(
            project=PROJECT,
            record_id=content_id("rec", number),
            kind=RecordKind.TICKET,
            source_id=f"T-{number}",
            source_event_id=f"event-{number}",
            input=words,
            output=json.dumps({"category": ("bell", "horn")[number % 2]}),
            group=f"customer-{number // 3}",
            trust=Trust.EXPERT,
        )
        yield new_event(data, source="/test")


def expected_dataset() -> str:
    deliveries = [
        Delivery(event, Position("record.ingested", 0, offset), {}) for offset, event in enumerate(records())
    ]
    spec = small_spec(PROJECT, dataset=BUILD)
    made = under_pseudonyms(build(rows_of(deliveries), spec), Pseudonyms(PROJECT))
    return dataset_id_of(spec, rows_sha256(made.split))


class Curate:
    """The service as a process of its own."""

    def __init__(self, kafka: str, folder: Path, **settings: str) -> None:
        self._kafka = {"bootstrap_servers": kafka}
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.store = folder / "store"
        self.held = folder / "held"
        self.held.mkdir()
        self.log = folder / "curate.log"
        self._environment = os.environ | {
            "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
            "TUNEWHEEL_STORE_URL": self.store.as_uri(),
            "TUNEWHEEL_APPEND_BATCH": "20",
            "TUNEWHEEL_POLICY_SECONDS": "0.1",
            "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000",  # what a killed one leaves is taken up
            "TMPDIR": str(self.scratch),
            HELD_IN: str(self.held),
            **settings,
        }

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            command = held_service("tunewheel_curate")
            return subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    @contextlib.contextmanager
    def holding(self, point: str) -> Iterator[None]:
        """Let it come no further than the middle of its work meanwhile: who is to kill it may be late."""
        (file := self.held / point).touch()
        yield
        file.unlink()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        process = self._start()
        try:
            yield
            assert process.poll() is None, self.log.read_text()[-3000:]
        finally:
            process.terminate()
            process.wait(PATIENCE)

    async def killed(
        self, when: Callable[[], bool], *, publish: Callable[[], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Start, publish once it is ready, kill -9 as soon as ``when`` holds, see the worker notice."""
        before = self._times_ready()
        process = self._start()
        try:
            await until(lambda: self._times_ready() > before, patience=PATIENCE)
            publishing = asyncio.create_task(publish()) if publish else None
            await until(when, patience=PATIENCE)
            children = psutil.Process(process.pid).children(recursive=True)
        finally:
            process.kill()
            process.wait(PATIENCE)
        if publishing is not None:
            await publishing
        await until(lambda: not any(is_alive(child) for child in children))

    def _times_ready(self) -> int:
        return self.log.read_text().count('"event": "ready"') if self.log.exists() else 0

    def appended(self) -> int:
        return RecordTable(str(self.store / "records")).arrivals().height

    async def has_committed(self) -> bool:
        backlog = await group_backlog(self._kafka, topics.RECORD_INGESTED.name, group=GROUP)
        return backlog.kept == backlog.ends

    def deletions(self) -> int:
        return self.log.read_text().count('"event": "records_deleted"') if self.log.exists() else 0

    def is_building(self) -> bool:
        return any(self.scratch.glob("tunewheel-curate-*/version/train.parquet"))


async def test_killed_while_it_appends_and_again_while_it_builds(fresh_kafka: str, tmp_path: Path) -> None:
    """No record is lost or doubled, and the build is answered once, by the version of an undisturbed one."""
    curate = Curate(fresh_kafka, tmp_path)
    async with Bus(fresh_kafka) as bus:
        await bus.publish(declared(PROJECT, dataset=BUILD))
        with curate.holding("appending"):
            await curate.killed(lambda: 0 < curate.appended() < COUNT, publish=lambda: publish_all(bus))
        assert curate.appended() < COUNT
        with curate.holding("building"):
            await curate.killed(curate.is_building)
        async with curate.running():
            (event,) = await bus.collect(topics.DATASET_VERSIONED, 1, patience=PATIENCE)
            command = DatasetRequested(project=PROJECT, reason=BuildReason.COMMAND, request="again")
            await bus.publish(new_event(command, source="/test"))
            # Answered on the same partition, so after whatever would have been built twice.
            (rejected,) = await bus.collect(topics.DATASET_REJECTED, 1, patience=PATIENCE)
        requests = await bus.collect(topics.DATASET_REQUESTED, 1)
    await assert_whole(curate, event)
    assert event.causation_id == requests[0].id
    assert event.data.dataset_id in rejected.data.reasons[0]
    assert await length(fresh_kafka, topics.DATASET_VERSIONED) == 1
    assert await length(fresh_kafka, topics.DATASET_REQUESTED) == 3, "the policy's, the command, its records"


async def assert_whole(curate: Curate, event: Envelope[DatasetVersioned]) -> None:
    """Every record is there once, the version is that of an undisturbed build, and no scratch is left."""
    arrivals = RecordTable(str(curate.store / "records")).arrivals()
    assert arrivals.height == arrivals["record_id"].n_unique() == COUNT
    assert event.data.counts.records == COUNT
    assert event.data.dataset_id == expected_dataset()
    await until(lambda: not list(curate.scratch.glob("tunewheel-curate-*")))


async def test_killed_between_append_commit_and_deletion_it_loses_no_record(
    fresh_kafka: str, tmp_path: Path
) -> None:
    """Each start deletes from the log what the table has and the group has committed."""
    curate = Curate(fresh_kafka, tmp_path, TUNEWHEEL_RECORD_DAYS="0", TUNEWHEEL_POLICY_SECONDS="60")
    async with Bus(fresh_kafka) as bus:
        await publish_all(bus)
        async with curate.running():
            await until(curate.has_committed, patience=PATIENCE)
        with curate.holding("appending"):  # appended, and neither committed nor deleted
            await curate.killed(lambda: curate.appended() > COUNT, publish=lambda: publish_all(bus, COUNT))
        before = curate.deletions()
        assert before > 0, "the first records"
        async with curate.running():
            await until(curate.has_committed, patience=PATIENCE)
        await publish_all(bus, 2 * COUNT)
        await curate.killed(lambda: curate.deletions() > before)
        async with curate.running():
            await until(lambda: curate.appended() == 3 * COUNT, patience=PATIENCE)
    arrivals = RecordTable(str(curate.store / "records")).arrivals()
    assert arrivals["record_id"].n_unique() == arrivals.height == 3 * COUNT
    assert not (curate.store / "missing-records").exists()


async def publish_all(bus: Bus, first: int = 0) -> None:
    await asyncio.gather(*(bus.publish(event) for event in records(first)))


async def length(kafka: str, topic: TopicSpec) -> int:
    """Return how many records ``topic`` holds, on a broker where nothing was deleted."""
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka)
    await consumer.start()
    try:
        ends = await consumer.end_offsets([TopicPartition(topic.name, n) for n in range(topic.partitions)])
    finally:
        await consumer.stop()
    return sum(ends.values())
