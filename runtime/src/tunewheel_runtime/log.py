"""Reads the log without a consumer group. All views, replays, searches and commands read it here.

Every mode treats these cases alike:

- A header without a value reads as empty.
- The broker names the partitions. A mode that follows also reads those that are added, from the beginning.
- Only committed records are seen, and ends are those of committed records. Compaction and transactions leave
  offsets without a record, so only the consumer's position says that an end is reached.
- A start that the log does not have (it was removed, or it belongs to another log) means the first record.
- Fields that a newer release wrote are left out (``decode``).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Collection, Generator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple, Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError, KafkaError, NodeNotReadyError
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import BY_NAME, TopicSpec

from tunewheel_runtime.deadletter import Undecoded, undecoded
from tunewheel_runtime.kafka import make_consumer, stop_consumer
from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.partitions import added_partitions, find_partitions, read_also, require_each

Place = tuple[str, int]
"""A topic and the number of one of its partitions; a ``TopicPartition`` is such a pair."""
NOTICE_MS = 30_000
"""``metadata_max_age_ms`` of cursors. A new partition is noticed after at most this long."""
STALLED_SECONDS = 60.0
"""A bounded read fails after so long without progress: aiokafka does not report an unavailable broker."""
WHOLE_LOG_BYTES = 8 << 20
"""``fetch_bytes`` of what reads topics as a whole."""
STALE_CONNECTIONS = 3
"""Most stale connections that are retried: one to each of the usual three brokers."""


class LogUnreadable(TransientError):
    """The broker does not answer, or does not let this client read. Its cause is the error of Kafka."""


class Span(NamedTuple):
    """The offsets of one partition: its first record, and where the next record goes."""

    begin: int
    end: int


class Cursor:
    """Reads topics from chosen offsets. Use it as a context; until ``start_from`` it reads nothing.

    Args:
        options: aiokafka's client options.
        names: the topics.
        follows: wait on the broker for new records, at little cost. Such a cursor must not be moved back: a
            wait that is under way delays the first record by up to ``POLL_MS``.
        missing_ok: leave out topics that do not exist.
        fetch_bytes: most bytes of one partition in one answer of the broker.
    """

    def __init__(
        self,
        options: Mapping[str, Any],
        names: Sequence[str],
        *,
        follows: bool = False,
        missing_ok: bool = False,
        fetch_bytes: int = 1 << 20,
    ) -> None:
        self._options = options
        self._names = list(names)
        self._follows = follows
        self._missing_ok = missing_ok
        self._fetch_bytes = fetch_bytes
        self._clients: tuple[AIOKafkaAdminClient, AIOKafkaConsumer] | None = None
        self.spans: dict[Place, Span] = {}
        """The partitions as ``look`` last found them."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self) -> None:
        """Connect, and look at the topics.

        Raises:
            LogUnreadable: the broker does not answer.
            TransientError: a topic does not exist.
        """
        admin = AIOKafkaAdminClient(**self._options)
        consumer = make_consumer(
            self._options,
            long_polling=self._follows,
            max_partition_fetch_bytes=self._fetch_bytes,
            metadata_max_age_ms=NOTICE_MS,
            fetch_max_wait_ms=500 if self._follows else 100,
        )
        self._clients = admin, consumer
        try:
            with self._named():
                await admin.start()
                await consumer.start()
            await self.look()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        if self._clients is not None:
            (admin, consumer), self._clients = self._clients, None
            self.spans = {}
            for stop in (partial(stop_consumer, consumer), admin.close):
                with contextlib.suppress(KafkaError, OSError):  # Nothing is left to read after an outage.
                    await stop()

    @property
    def _connected(self) -> tuple[AIOKafkaAdminClient, AIOKafkaConsumer]:
        if self._clients is None:
            raise LogUnreadable("the broker is not connected yet; try again shortly")
        return self._clients

    @property
    def _consumer(self) -> AIOKafkaConsumer:
        return self._connected[1]

    async def look(self) -> dict[Place, Span]:
        """Return where each partition begins and ends now. Partitions that were just added are among them.

        Raises:
            LogUnreadable: the broker does not answer.
            TransientError: a topic does not exist.
        """
        with self._named():
            for _ in range(STALE_CONNECTIONS):
                # The broker closes a connection that was idle or whose session expired when it is next used.
                with contextlib.suppress(KafkaConnectionError, NodeNotReadyError):
                    return await self._look()
            return await self._look()

    async def _look(self) -> dict[Place, Span]:
        admin, consumer = self._connected
        exist = bool(self.spans) and not self._missing_ok
        partitions = await find_partitions(admin, self._names, exist=exist)
        if not self._missing_ok:
            require_each(partitions, self._names)
        if partitions and not consumer.assignment():
            consumer.assign(partitions)  # The client then learns of all topics at once.
            consumer.pause(*partitions)
        begins, ends = await asyncio.gather(
            consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
        )
        self.spans = {partition: Span(begins[partition], ends[partition]) for partition in partitions}
        return self.spans

    def start_from(self, begins: Mapping[Place, int]) -> None:
        """Read these partitions alone, from these offsets on."""
        partitions = {TopicPartition(*place): offset for place, offset in begins.items()}
        self._consumer.assign(list(partitions))
        for partition, offset in partitions.items():
            begin, end = self.spans[partition]
            self._consumer.seek(partition, offset if begin <= offset <= end else begin)

    async def offsets_at(self, since: datetime) -> dict[Place, int]:
        """Return by partition the offset of the first record that was logged at ``since`` or later."""
        with self._named():
            milliseconds = {TopicPartition(*place): int(since.timestamp() * 1000) for place in self.spans}
            found = await self._consumer.offsets_for_times(milliseconds)
        return {tp: at.offset if at else self.spans[tp].end for tp, at in found.items()}

    def rest(self) -> None:
        """Fetch nothing until the next start."""
        self._consumer.pause(*self._consumer.assignment())

    async def fetch(
        self, *places: Place, timeout_ms: int = 1_000, most: int | None = None
    ) -> list[Undecoded]:
        """Return the next records, at most ``most``, in order within a partition; none if none came in
        time."""
        with self._named():
            partitions = [TopicPartition(*place) for place in places]
            batches = await self._consumer.getmany(*partitions, timeout_ms=timeout_ms, max_records=most)
        return [undecoded(record) for records in batches.values() for record in records]

    async def reached(self) -> dict[Place, int]:
        """Return by partition the offset before which ``fetch`` has returned every record."""
        with self._named():
            return {tp: await self._consumer.position(tp) for tp in self._consumer.assignment()}

    async def take_up_added(self) -> list[Place]:
        """Also read partitions that were added to the topics, from the beginning; return them."""
        consumer = self._consumer
        found = {TopicPartition(*place) for place in self.spans} | added_partitions(consumer, self._names)
        added = sorted(found - consumer.assignment())
        if added:
            with self._named():
                await read_also(consumer, added)
        return [*added]

    async def upto(
        self, ends: Mapping[Place, int], *, most: int | None = None, patience: float = STALLED_SECONDS
    ) -> AsyncGenerator[list[Undecoded]]:
        """Yield records in batches until the position of each partition is at its end or beyond. The last
        batch may hold later records too. Raises LogUnreadable: nothing was read for ``patience`` seconds."""
        left, reached, moved = dict(ends), dict[Place, int](), time.monotonic()
        while True:
            before, reached = reached, await self.reached()
            left = {place: end for place, end in left.items() if reached[place] < end}
            if not left:
                return
            if reached != before:
                moved = time.monotonic()
            elif time.monotonic() - moved > patience:
                raise LogUnreadable(f"cannot read {', '.join(self._names)}: no record for {patience:g} s")
            if records := await self.fetch(*left, timeout_ms=200, most=most):
                yield records

    @contextlib.contextmanager
    def _named(self) -> Generator[None]:
        try:
            yield
        except (KafkaError, OSError) as error:
            reason = not_allowed(error) or repr(error)
            raise LogUnreadable(f"cannot read {', '.join(self._names)}: {reason}") from error


async def ends(
    options: Mapping[str, Any], names: Sequence[str], *, missing_ok: bool = False
) -> dict[Place, Span]:
    """Return where each partition begins and ends. Raises as ``Cursor.look``."""
    async with Cursor(options, names, missing_ok=missing_ok) as cursor:
        return cursor.spans


async def read(
    options: Mapping[str, Any],
    names: Sequence[str],
    *,
    upto: Mapping[Place, int] | None = None,
    last: int | None = None,
    missing_ok: bool = False,
) -> AsyncGenerator[list[Undecoded]]:
    """Yield the present records in batches, in order within a partition. Raises as ``Cursor.upto``.

    Args:
        options: aiokafka's client options.
        names: the topics.
        upto: read these partitions alone, each up to this offset.
        last: begin so many offsets before the end. None: at the first record.
        missing_ok: leave out topics that do not exist.
    """
    async with Cursor(options, names, missing_ok=missing_ok, fetch_bytes=WHOLE_LOG_BYTES) as cursor:
        ends = {place: span.end for place, span in cursor.spans.items()}
        if upto is not None:
            ends = {place: min(ends[place], end) for place, end in upto.items() if place in ends}
        cursor.start_from(_begins(cursor.spans, ends, last))
        async for records in cursor.upto(ends):
            if before := [one for one in records if one.position.offset < ends[one.position.place]]:
                yield before


async def follow(
    options: Mapping[str, Any], names: Sequence[str], *, last: int | None = None, missing_ok: bool = False
) -> AsyncGenerator[list[Undecoded]]:
    """Yield records in batches as they come, without end; arguments and errors as in ``read``."""
    async with Cursor(options, names, follows=True, missing_ok=missing_ok) as cursor:
        cursor.start_from(_begins(cursor.spans, cursor.spans, last))
        while True:
            await cursor.take_up_added()
            if records := await cursor.fetch():
                yield records


def _begins(spans: Mapping[Place, Span], wanted: Collection[Place], last: int | None) -> dict[Place, int]:
    first = {place: spans[place].begin for place in wanted}
    return first if last is None else {at: max(begin, spans[at].end - last) for at, begin in first.items()}


async def latest(
    options: Mapping[str, Any], topic: TopicSpec, *, missing_ok: bool = False
) -> dict[str, Envelope[Any]]:
    """Return the newest event per key of a compacted topic. A tombstone removes its key.

    Records of one key lie in one partition. Since partitions may have been added, a key may have older
    records in another one; then the later timestamp counts.
    """
    newest: dict[str, tuple[Undecoded, Envelope[Any] | None]] = {}
    async for records in read(options, [topic.name], missing_ok=missing_ok):
        for record in records:
            event = None if topic.is_tombstone(record.value) else decoded(record)
            if event is None and record.value is not None:
                continue
            before, _ = newest.get(record.key_text, (record, None))
            is_later = (before.logged_ms or 0) <= (record.logged_ms or 0)
            if is_later or before.position.place == record.position.place:
                newest[record.key_text] = record, event
    return {event.data.record_key: event for _, event in newest.values() if event is not None}


async def at(
    options: Mapping[str, Any], topic: TopicSpec, places: Collection[tuple[int, int]]
) -> dict[tuple[int, int], Envelope[Any]]:
    """Return the events at ``places``, pairs of partition and offset. Places without a readable event are
    left out. Raises as ``Cursor.upto``."""
    found = await records_at(options, topic.name, places)
    return {place: event for place, record in found.items() if (event := decoded(record)) is not None}


async def records_at(
    options: Mapping[str, Any], name: str, places: Collection[tuple[int, int]]
) -> dict[tuple[int, int], Undecoded]:
    """Return the records at ``places``, pairs of partition and offset. Places without a record are left out.
    Raises as ``Cursor.upto``."""
    found: dict[tuple[int, int], Undecoded] = {}
    async with Cursor(options, [name], fetch_bytes=1 << 16) as cursor:
        for number, offset in sorted(set(places)):
            place = name, number
            begin, end = cursor.spans.get(place, (0, 0))
            if not begin <= offset < end:
                continue
            cursor.start_from({place: offset})
            async for (record,) in cursor.upto({place: offset + 1}, most=1):
                if record.position.offset == offset:
                    found[number, offset] = record
    return found


def decode(record: Undecoded, topic: TopicSpec | None = None) -> Envelope[Any]:
    """Return the event of ``topic``, by default that of the record, without fields of newer releases. Raises
    InvalidEvent: see ``Envelope.from_kafka``."""
    event_class = (topic or BY_NAME[record.position.topic]).event
    return Envelope.from_kafka(event_class, record.value, record.headers, logged_ms=record.logged_ms)


def decoded(record: Undecoded) -> Envelope[Any] | None:
    """Return a record as an event; None: it cannot be decoded."""
    try:
        return decode(record)
    except InvalidEvent:
        return None
