"""Reads a topic of another system. Its records are no events of ours: a handler makes events of them.

Delivery is at least once, as for our own topics: the offset is committed once the handler's events are
acknowledged and the dead letters are written. Each reader has a consumer group of its own, so a reader that
waits, for a registry or for a right on its topic, delays nobody else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import structlog
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TopicSpec

from tunewheel_runtime.consuming import Consumption, commit
from tunewheel_runtime.deadletter import Refusal, Undecoded, Warn, undecoded
from tunewheel_runtime.handling import Record
from tunewheel_runtime.kafka import foreign_options, make_consumer, stop_consumer
from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.log import ends
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.waiting import end_all

log = structlog.get_logger(__name__)
AT_ONCE = 500
PAUSE_SECONDS = 10.0
"""How long a reader rests after Kafka or another system did not answer. Its records wait."""


@dataclass(frozen=True, slots=True)
class Handled:
    """What a handler made of one record: events, and the refusal of the record or of a part of it."""

    events: Sequence[Envelope[Any]] = ()
    refusal: InvalidEvent | None = None


@dataclass(frozen=True, slots=True)
class Foreign:
    """A topic of another system, read for one project. ``becomes``: the topic of the events that are made of
    it; its dead letters hold the records that are refused."""

    topic: str
    group: str
    project: str
    becomes: TopicSpec


@dataclass(slots=True)
class ForeignReader:
    """Reads one foreign topic until it is stopped. Nothing that happens to it stops the service."""

    settings: ServiceSettings
    consumption: Consumption
    warn: Warn
    foreign: Foreign
    handle: Callable[[Undecoded], Awaitable[Handled]]
    members: dict[tuple[str, str], Any]
    """The consumers whose lag is measured, by group and topic. The reader puts its own there."""
    _task: asyncio.Task[None] | None = field(default=None, init=False)

    def start(self) -> None:
        self.consumption.dead_letters.expect(self.foreign.topic)
        self._task = asyncio.create_task(self._run(), name=self.foreign.group)

    async def stop(self) -> None:
        await end_all(self._task)
        self._tell(None)

    def _tell(self, text: str | None) -> None:
        self.warn(f"source {self.foreign.group}", text and f"{self.foreign.topic} is not read: {text}")

    async def _run(self) -> None:
        while True:
            try:
                await self._read()
            except (KafkaError, TransientError, OSError) as error:
                self._tell(str(not_allowed(error) or error))
            except Exception as error:
                log.exception("foreign_topic_failed", topic=self.foreign.topic)
                self._tell(f"{type(error).__name__}; its log tells more")
            await asyncio.sleep(PAUSE_SECONDS)

    async def _read(self) -> None:
        options = foreign_options(self.settings)
        # A member of a group whose topic is missing may never leave the group: look before joining.
        if not await ends(options, [self.foreign.topic], missing_ok=True):
            raise TransientError("it does not exist, or ingest may not describe it")
        consumer = make_consumer(
            options,
            self.foreign.topic,
            group_id=f"{self.settings.topic_prefix}{self.foreign.group}",
            session_timeout_ms=self.settings.session_timeout_ms,
            heartbeat_interval_ms=self.settings.session_timeout_ms // 3,
            max_partition_fetch_bytes=8 << 20,
        )
        try:
            await consumer.start()
            self.members[self.foreign.group, self.foreign.topic] = consumer
            while True:
                batches = await consumer.getmany(timeout_ms=1_000, max_records=AT_ONCE)
                for records in batches.values():
                    await self._consume(records)
                    await commit(consumer, records)
                self._tell(None)
        finally:
            self.members.pop((self.foreign.group, self.foreign.topic), None)
            await stop_consumer(consumer)

    async def _consume(self, records: Sequence[Record]) -> None:
        made: list[tuple[Record, Sequence[Envelope[Any]]]] = []
        refusals: list[Refusal] = []
        for record in records:
            raw = self._raw(record)
            try:
                done = await self.consumption.survive(
                    self.foreign.becomes, record, lambda one=raw: self.handle(one)
                )
            except InvalidEvent as error:
                done = Handled(refusal=error)
            made.append((record, done.events))
            refusals += self._judged(raw, done.refusal)
        self.consumption.instruments.consumed.add(len(records), {"topic": self.foreign.topic})
        publish = self.consumption.publisher.publish_many
        for record, error in await self.consumption.publish_all(self.foreign.topic, made, publish):
            refusals += self._judged(self._raw(record), error)
        await self.consumption.dead_letters.put(refusals)

    def _raw(self, record: Record) -> Undecoded:
        """Return the record, with what tells whose it is among the dead letters."""
        raw = undecoded(record)
        headers = {**raw.headers, "ce_project": self.foreign.project.encode()}
        return replace(raw, headers=headers, letters=self.foreign.becomes.name)

    def _judged(self, raw: Undecoded, refusal: InvalidEvent | None) -> list[Refusal]:
        """Note whether the record was refused; floods are measured by it."""
        letters = self.consumption.dead_letters
        if refusal is None:
            letters.passed(raw.position.topic, self.foreign.project)
            return []
        letters.refuse(raw, refusal, project=self.foreign.project)
        return [(raw, refusal)]
