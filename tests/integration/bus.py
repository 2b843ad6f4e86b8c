"""The test's own end of the log: publish, collect, and run a service in this process or in its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.lifecycle import Lifecycle
from tunewheel_runtime.service import Service
from tunewheel_testing.waiting import PATIENCE_SECONDS, until


@dataclass(frozen=True)
class Letter:
    field: str
    reason: str
    source_topic: str
    source_offset: int
    value: bytes


class Bus:
    """A producer and throw-away readers on ``kafka``; reads see only what came after it was opened."""

    def __init__(self, kafka: str) -> None:
        self._kafka = kafka

    async def __aenter__(self) -> Self:
        # Idempotent: what is sent again because its acknowledgement came late would be there twice.
        self._producer = AIOKafkaProducer(
            bootstrap_servers=self._kafka, max_request_size=8 << 20, enable_idempotence=True
        )
        await self._producer.start()
        self._marks: dict[TopicPartition, int] = {}
        await self._mark()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._producer.stop()

    async def _mark(self) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._kafka)
        consumer = AIOKafkaConsumer(bootstrap_servers=self._kafka)
        await admin.start()
        await consumer.start()
        try:
            topics = [t["topic"] for t in await admin.describe_topics() if not t["is_internal"]]
            described = await admin.describe_topics(topics)
            partitions = [
                TopicPartition(t["topic"], p["partition"]) for t in described for p in t["partitions"]
            ]
            consumer.assign(partitions)  # learns of all topics at once, not one by one
            self._marks = await consumer.end_offsets(partitions)
        finally:
            await consumer.stop()
            await admin.close()

    async def publish(self, *events: Envelope[Any]) -> None:
        """Publish the events in order; the broker acknowledges them together."""
        records = [event.to_kafka() for event in events]
        sent = [
            await self._producer.send(r.topic, r.value, key=r.key, headers=list(r.headers.items()))
            for r in records
        ]
        await asyncio.gather(*sent)

    async def send(
        self,
        topic: str,
        key: bytes,
        value: bytes | None,
        headers: Mapping[str, bytes | None],
        *,
        timestamp_ms: int | None = None,
    ) -> None:
        await self._producer.send_and_wait(
            topic, value, key=key, headers=list(headers.items()), timestamp_ms=timestamp_ms
        )

    async def read(self, topic: str) -> AsyncIterator[Any]:
        """Yield the records of ``topic`` since the bus was opened, then follow it."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._kafka,
            max_partition_fetch_bytes=8 << 20,
            auto_offset_reset="earliest",  # an erasure may have deleted what lay at the mark
            isolation_level="read_committed",
        )
        await consumer.start()
        try:
            partitions = [partition for partition in self._marks if partition.topic == topic]
            consumer.assign(partitions)
            for partition in partitions:
                consumer.seek(partition, self._marks[partition])
            async for record in consumer:
                yield record
        finally:
            await consumer.stop()

    async def collect(
        self,
        topic: TopicSpec,
        count: int,
        *,
        where: Callable[[Envelope[Any]], bool] = lambda _: True,
        patience: float = PATIENCE_SECONDS,
    ) -> list[Envelope[Any]]:
        """Return the first ``count`` events of ``topic`` that fit ``where``."""
        found: list[Envelope[Any]] = []
        async with asyncio.timeout(patience):
            async with contextlib.aclosing(self.read(topic.name)) as records:
                async for record in records:
                    event = Envelope.from_kafka(topic.event, record.value, record.headers)
                    if where(event):
                        found.append(event)
                    if len(found) == count:
                        break
        return found

    async def dead_letters(self, topic: str, count: int, *, about: str = "") -> list[Letter]:
        """Return the first ``count`` dead letters of ``topic`` whose original bytes name ``about``, and came
        after the bus was opened.

        Tests share a broker, and a service goes on where its group was: what another test left there may
        become a dead letter here.
        """
        found: list[Letter] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            async with contextlib.aclosing(self.read(f"{topic}.dlq")) as records:
                async for record in records:
                    if about.encode() not in (record.value or b""):
                        continue
                    told = {name: value for name, value in record.headers if name.startswith("dlq_")}
                    at = TopicPartition(told["dlq_source_topic"].decode(), int(told["dlq_source_partition"]))
                    if int(told["dlq_source_offset"]) < self._marks.get(at, 0):
                        continue
                    found.append(
                        Letter(
                            field=told["dlq_field"].decode(),
                            reason=told["dlq_reason"].decode(),
                            source_topic=told["dlq_source_topic"].decode(),
                            source_offset=int(told["dlq_source_offset"]),
                            value=record.value,
                        )
                    )
                    if len(found) == count:
                        break
        return found


@contextlib.asynccontextmanager
async def running(service: Service) -> AsyncIterator[Service]:
    """Run ``service`` in this loop from ready to stopped."""
    task = asyncio.create_task(Lifecycle(service).serve())
    try:
        await until(lambda: service.health.ready or task.done() or service.failure is not None)
        if service.failure is not None:
            raise service.failure
        yield service
    finally:
        service.stop()
        await asyncio.wait_for(task, PATIENCE_SECONDS)


@contextlib.contextmanager
def process(
    module: str, kafka: str, store: Path, log: Path, **settings: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run the service ``module`` in a process of its own, which is killed at the end."""
    environment = os.environ | {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
        "TUNEWHEEL_STORE_URL": store.as_uri(),
        "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000",
        **settings,
    }
    with log.open("ab") as stream:
        started = subprocess.Popen(
            [sys.executable, "-m", module], env=environment, stdout=stream, stderr=stream
        )
        try:
            yield started
        finally:
            if started.poll() is None:
                started.kill()
            started.wait(PATIENCE_SECONDS)
