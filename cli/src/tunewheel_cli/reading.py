"""Reads events, declared projects and published documents from the log, without a consumer group."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import InvalidEvent, TunewheelError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.topics import BY_NAME, DOCUMENT_PUBLISHED, PROJECT_DECLARED, TopicSpec

from tunewheel_cli.connection import unreachable

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition

_FETCH_BYTES = 8 << 20


@asynccontextmanager
async def consumer(options: Mapping[str, Any]) -> AsyncIterator[AIOKafkaConsumer]:
    """Connect a consumer without a group.

    Raises:
        TransientError: no Kafka answers, now or while the consumer is in use.
        NotAllowed: Kafka does not let this client read.
    """
    from aiokafka.errors import KafkaError
    from tunewheel_runtime.kafka import make_consumer

    client = make_consumer(options, max_partition_fetch_bytes=_FETCH_BYTES)
    try:
        await client.start()
    except (KafkaError, OSError) as error:
        await client.stop()
        raise await unreachable(options, error) from error
    # aiokafka 0.14 raises CancelledError if it is stopped before its background task has run once.
    await asyncio.sleep(0)
    try:
        yield client
    except KafkaError as error:
        raise await unreachable(options, error) from error
    finally:
        await client.stop()


async def read_topics(
    options: Mapping[str, Any], topics: Sequence[TopicSpec], *, skipped: list[str] | None = None
) -> AsyncIterator[Envelope[Any]]:
    """Yield every event of ``topics`` up to their current ends, in order within a partition.

    Events that cannot be decoded are left out and listed in ``skipped``.
    """
    names = [topic.name for topic in topics]
    async for record in read_records(options, names):
        if BY_NAME[record.topic].is_tombstone(record.value):
            continue
        if (event := decode(record, skipped)) is not None:
            yield event


async def read_latest(options: Mapping[str, Any], topic: TopicSpec) -> dict[str, Envelope[Any]]:
    """Return the newest event per key of a compacted topic. A tombstone removes its key."""
    latest: dict[str, Envelope[Any]] = {}
    async for record in read_records(options, [topic.name]):
        if topic.is_tombstone(record.value):
            latest.pop((record.key or b"").decode("utf-8", "replace"), None)
        elif (event := decode(record)) is not None:
            latest[event.data.record_key] = event
    return latest


async def read_records(
    options: Mapping[str, Any], names: Sequence[str]
) -> AsyncGenerator[ConsumerRecord[bytes, bytes]]:
    """Yield every record of the topics that exist, up to their current ends, in order within a partition."""
    from tunewheel_runtime.partitions import partitions_of

    async with consumer(options) as client:
        partitions = await partitions_of(options, names)
        if not partitions:
            return
        client.assign(partitions)
        ends = await client.end_offsets(partitions)
        await client.seek_to_beginning(*partitions)
        left = {tp for tp in partitions if ends[tp] > await client.position(tp)}
        while left:
            for batch in (await client.getmany(*left, timeout_ms=500)).values():
                for record in batch:
                    if record.offset < ends[_place(record)]:
                        yield record
            for partition in list(
                left
            ):  # compaction and transactions leave gaps that only the position shows
                if await client.position(partition) >= ends[partition]:
                    left.discard(partition)


def decode(record: ConsumerRecord[bytes, bytes], skipped: list[str] | None = None) -> Envelope[Any] | None:
    """Return a record as an event, None if it is none."""
    try:
        event_class = BY_NAME[record.topic].event
        return Envelope.from_kafka(event_class, record.value, record.headers, logged_ms=record.timestamp)
    except InvalidEvent as error:
        if skipped is not None:
            skipped.append(f"{record.topic}[{record.partition}]@{record.offset}: {error}")
        return None


def _place(record: ConsumerRecord[bytes, bytes]) -> TopicPartition:
    from aiokafka import TopicPartition

    return TopicPartition(record.topic, record.partition)


async def follow(
    options: Mapping[str, Any], topics: Sequence[TopicSpec], *, from_beginning: bool = False
) -> AsyncIterator[Envelope[Any]]:
    """Yield the events of ``topics`` as they come, without end, from the beginning or from now on."""
    from tunewheel_runtime.partitions import NOTICE_MS, added_partitions, partitions_of, read_also

    names = [topic.name for topic in topics]
    async with consumer({**options, "metadata_max_age_ms": NOTICE_MS}) as client:
        partitions = await partitions_of(options, names)
        client.assign(partitions)
        if from_beginning:
            await client.seek_to_beginning(*partitions)
        else:
            for tp, end in (await client.end_offsets(partitions)).items():
                client.seek(tp, end)
        while True:
            if added := added_partitions(client, names):
                await read_also(client, added)
            for records in (await client.getmany(timeout_ms=1_000)).values():
                for record in records:
                    if (event := decode(record)) is not None:
                        yield event


class UnknownProject(TunewheelError):
    """The project was never declared."""


class UnknownDocument(TunewheelError):
    """The project never had a document of this id."""


async def declared_projects(options: Mapping[str, Any]) -> dict[str, ProjectDeclared]:
    """Return the newest declaration of every project."""
    return {key: event.data for key, event in (await read_latest(options, PROJECT_DECLARED)).items()}


async def require_project(options: Mapping[str, Any], project: str) -> ProjectDeclared:
    """Return the declaration of ``project``.

    Raises:
        UnknownProject: there is none; the message lists the declared projects.
    """
    declared = await declared_projects(options)
    if project not in declared:
        others = f" (declared: {', '.join(sorted(declared))})" if declared else ""
        raise UnknownProject(
            f"project: {project!r} is not declared{others}; run `tunewheel declare project.yaml` first"
        )
    return declared[project]


async def require_documents(options: Mapping[str, Any], project: str, names: Collection[str]) -> None:
    """Read published documents until each of ``names`` was found.

    Raises:
        UnknownDocument: the project never had one of them; the message names the closest ids.
    """
    missing, others = set(names), set[str]()
    async with aclosing(read_records(options, [DOCUMENT_PUBLISHED.name])) as records:
        async for record in records:
            if not missing:
                return
            if (event := decode(record)) is not None and event.project == project:
                missing.discard(event.data.document_id)
                others.add(event.data.document_id)
    if missing:
        name = min(missing)
        close = get_close_matches(name, others, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else "ids are paths below what was published."
        raise UnknownDocument(f"document: {project} never had {name!r}; {hint} Nothing was withdrawn")
