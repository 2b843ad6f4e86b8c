"""The partitions of topics, their ends and committed offsets. The broker is asked and not the spec, because
operators may add partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from aiokafka.partitioner import murmur2
from aiokafka.protocol.metadata import MetadataRequest
from tunewheel_contracts.errors import TransientError

from tunewheel_runtime.kafka import make_consumer, stop_consumer

GROUPS_AT_ONCE = 8
"""Most groups that are queried at the same time."""
T = TypeVar("T")
U = TypeVar("U")


async def each(items: Iterable[T], ask: Callable[[T], Awaitable[U]]) -> list[U]:
    """Return the results of ``ask`` for ``items``, in order. At most ``GROUPS_AT_ONCE`` calls run at a time,
    so that the broker is not flooded."""
    places = asyncio.Semaphore(GROUPS_AT_ONCE)

    async def one(item: T) -> U:
        async with places:
            return await ask(item)

    return await asyncio.gather(*map(one, items))


async def all_partitions_of(options: Mapping[str, Any], names: Sequence[str]) -> list[TopicPartition]:
    """Return every partition of topics that must exist. ``options``: aiokafka's client options.

    Raises:
        TransientError: a topic does not exist (yet).
        TopicAuthorizationFailedError: see ``find_partitions``.
    """
    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        return require_each(await find_partitions(admin, names), names)
    finally:
        await admin.close()


async def find_partitions(
    admin: AIOKafkaAdminClient, names: Sequence[str], *, exist: bool = False
) -> list[TopicPartition]:
    """Return every partition of the topics that exist. ``exist``: all of them do. Otherwise all topics of the
    broker are described, because some brokers create a topic that is described by name. Raises
    TopicAuthorizationFailedError: this client has no right to see a topic."""
    answer = await admin.describe_topics(list(names) if exist else None)
    described = {topic["topic"]: topic["partitions"] for topic in answer}
    await require_sight(admin, [name for name in names if name not in described])
    return [TopicPartition(name, p["partition"]) for name in names for p in described.get(name, ())]


async def require_sight(admin: AIOKafkaAdminClient, unseen: list[str]) -> None:
    """Check whether a topic in ``unseen`` exists but is hidden from this client. The broker's list omits
    hidden topics as well as missing ones. Raises TopicAuthorizationFailedError: this client has no right to
    see one of ``unseen``."""
    if not unseen:
        return
    answer: Any = await admin._send_request(MetadataRequest(unseen, allow_auto_topic_creation=False))
    error = TopicAuthorizationFailedError.errno
    if hidden := [topic["topic"] for topic in answer.to_object()["topics"] if topic["error_code"] == error]:
        raise TopicAuthorizationFailedError(hidden)


def require_each(found: list[TopicPartition], names: Sequence[str]) -> list[TopicPartition]:
    """Return ``found`` if it has partitions of each topic. Raises TransientError: a topic does not exist
    (yet)."""
    if missing := sorted(set(names) - {tp.topic for tp in found}):
        raise TransientError(
            f"no such topic on the broker: {', '.join(missing)}; create it (tunewheel admin topics)"
        )
    return found


def added_partitions(consumer: AIOKafkaConsumer, names: Sequence[str]) -> set[TopicPartition]:
    """Return the partitions that ``consumer`` knows of and does not read yet."""
    existing = {TopicPartition(name, n) for name in names for n in consumer.partitions_for_topic(name) or ()}
    return existing - consumer.assignment()


async def read_also(
    consumer: AIOKafkaConsumer, added: Collection[TopicPartition]
) -> dict[TopicPartition, int]:
    """Assign the partitions ``added`` to ``consumer`` in addition to its present ones; return their first
    offsets, from which they are read.

    Call it between two fetches: a new assignment replaces the old one and discards prefetched records.
    """
    begins: dict[TopicPartition, int] = await consumer.beginning_offsets(list(added))
    at = {tp: await consumer.position(tp) for tp in consumer.assignment()} | begins
    consumer.assign(list(at))
    for partition, offset in at.items():
        consumer.seek(partition, offset)
    return begins


@dataclass(frozen=True, slots=True)
class Settled:
    """The partitions of a topic that one process handles and has handled to their ends. ``partitions``: how
    many the topic has."""

    partitions: int
    own: frozenset[int]

    def holds(self, key: str) -> bool:
        """Return whether events with this record key are in these partitions."""
        return bool(self.partitions) and partition_of(key, self.partitions) in self.own


def partition_of(key: str, partitions: int) -> int:
    """Return the partition of a record key. All producers of this project, and Kafka's own, compute it this
    way."""
    return (murmur2(key.encode()) & 0x7FFFFFFF) % partitions


def handles(consumer: AIOKafkaConsumer, topic: str, key: str) -> bool:
    """Return whether events on ``topic`` with this record key are assigned to this member of a group."""
    count = len(consumer.partitions_for_topic(topic) or ())
    return bool(count) and TopicPartition(topic, partition_of(key, count)) in consumer.assignment()


async def settled_of(consumer: AIOKafkaConsumer, topic: str) -> Settled:
    """Return the partitions that a member of a group has handled: committed up to the last known end. Raises
    KafkaError: the broker does not answer."""
    own: set[int] = set()
    for tp in consumer.assignment():
        end = consumer.last_stable_offset(tp)
        if end is not None and (await consumer.committed(tp) or 0) >= end:
            own.add(tp.partition)
    return Settled(len(consumer.partitions_for_topic(topic) or ()), frozenset(own))


@dataclass(frozen=True, slots=True)
class Backlog:
    """By partition: the end of a topic, and the offset committed by any member of a group."""

    ends: Mapping[int, int]
    kept: Mapping[int, int]

    def has_kept(self, upto: Mapping[int, int]) -> bool:
        """Return whether everything before the offsets ``upto`` was handled."""
        return all(self.kept.get(partition, 0) >= end for partition, end in upto.items())


async def backlog_of(consumer: AIOKafkaConsumer, partitions: Sequence[TopicPartition]) -> Backlog:
    """Return how far the group of ``consumer`` has handled ``partitions`` of one topic, including those of
    other members. Raises KafkaError: the broker does not answer."""
    begins, ends, committed = await asyncio.gather(
        consumer.beginning_offsets(partitions),
        consumer.end_offsets(partitions),
        asyncio.gather(*(consumer.committed(p) for p in partitions)),
    )
    # A group that never consumed has no commit. Records that were deleted meanwhile count as handled.
    kept = {p.partition: max(begins[p], at or 0) for p, at in zip(partitions, committed, strict=True)}
    return Backlog({p.partition: end for p, end in ends.items()}, kept)


async def group_backlog(options: Mapping[str, Any], topic: str, *, group: str) -> Backlog:
    """Return how far ``group`` has handled ``topic``, without joining it. Raises TransientError: the broker
    does not answer, or the topic does not exist (yet)."""
    consumer = make_consumer(options, group_id=group)
    try:
        await consumer.start()
        partitions = await all_partitions_of(options, [topic])
        consumer.assign(partitions)
        return await backlog_of(consumer, partitions)
    except (KafkaError, OSError) as error:
        raise TransientError(f"cannot tell how far {group} has handled {topic}: {error!r}") from error
    finally:
        await stop_consumer(consumer)


async def lag_of(
    members: Mapping[tuple[str, str], AIOKafkaConsumer],
    caught_up: dict[tuple[str, str], dict[TopicPartition, int]],
) -> dict[tuple[str, str, str], float]:
    """Return the number of unprocessed records in the partitions that ``members`` have now, by group, topic
    and partition. ``members``: consumers by group and topic.

    Only a few groups are queried at a time (``each``). A group that has handled everything, in whose
    partitions no record was published since, is not queried again: ``caught_up`` keeps the ends of such
    groups from one call to the next. Raises KafkaError: the broker does not answer.
    """

    async def ask(of: tuple[str, str]) -> Mapping[int, float]:
        consumer = members[of]
        held = sorted(consumer.assignment())
        ends = {partition: consumer.last_stable_offset(partition) for partition in held}
        if ends == caught_up.get(of, {}):
            return {partition.partition: 0 for partition in held}
        backlog = await backlog_of(consumer, held)
        lag = {number: max(0, end - backlog.kept[number]) for number, end in backlog.ends.items()}
        caught_up[of] = {} if any(lag.values()) else {tp: backlog.ends[tp.partition] for tp in held}
        return lag

    found = await each(members, ask)
    return {
        (group, topic, str(number)): waiting
        for (group, topic), lag in zip(members, found, strict=True)
        for number, waiting in lag.items()
    }
