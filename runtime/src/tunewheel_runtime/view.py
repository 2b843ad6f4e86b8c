"""Materialised views and log readers: they read topics to the end before a service handles its first
event."""

from __future__ import annotations

import asyncio
import inspect
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import structlog
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, Event
from tunewheel_contracts.topics import BY_NAME, TopicSpec

from tunewheel_runtime.deadletter import Check, Position, Undecoded, Warn, unchecked
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.log import WHOLE_LOG_BYTES, Cursor, LogUnreadable, Place, Span, decode
from tunewheel_runtime.newer_releases import NewerReleases
from tunewheel_runtime.waiting import end_all, reporting

log = structlog.get_logger(__name__)
E = TypeVar("E", bound=Event)
Apply = Callable[[Envelope[Any]], Awaitable[None] | None]
ApplyAt = Callable[[Envelope[Any], Position], Awaitable[None] | None]
Forget = Callable[[TopicSpec, str], None]
"""Called with the topic and the key of a tombstone."""
Keep = Callable[[Undecoded], Awaitable[bool]]
"""Called with every record as it is on the log, before it is decoded. True: nothing else is to be done."""
Failed = Callable[[BaseException], None]
Begins = Callable[[], Awaitable[Mapping[str, Mapping[str, int] | None]]]
"""Returns by topic the offset of each partition from which to read; None: from the topic's end. Topics and
partitions that are not named are read from the beginning."""


class LogReader:
    """Reads whole topics from the beginning, without a consumer group, and goes on following them.

    All partitions of the broker are read, including those that are added later. Within a partition events
    come in log order. The initial read merges topics by log timestamp; at equal timestamps the order of
    ``topics`` counts.

    An invalid record is skipped and reported to ``newer``: a bad record must not stop a view for ever. A
    tombstone (null, on a compacted topic) is passed to ``forget``. Any other error ends the reading and is
    passed to ``failed``, because the state in memory would become outdated.

    With ``begins`` the reading starts at the offsets that it returns. The initial read then applies events as
    they arrive, in no order between partitions, so that a long log need not fit into memory. This is only for
    folds whose result does not depend on the order. Such a reader fails if records that it was still to
    follow were deleted from the log: the next start knows what else has them.

    ``check`` refuses an event that does not count; it is skipped like an invalid record. ``keep`` may take a
    record as it is, to decode it later with ``event_of``.

    ``warn`` is called for a topic with unlimited retention whose first events are missing; the state in
    memory then lacks them.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        topics: Sequence[TopicSpec],
        apply: ApplyAt,
        *,
        failed: Failed,
        forget: Forget = lambda _topic, _key: None,
        warn: Warn = lambda _name, _text: None,
        begins: Begins | None = None,
        newer: NewerReleases | None = None,
        check: Check = unchecked,
        keep: Keep | None = None,
    ) -> None:
        self._begins = begins
        self._keep = keep
        self._check = check
        self._newer = newer or NewerReleases()
        self._topics = tuple(topics)
        self._cursor = Cursor(client_options(settings), self.names, follows=True, fetch_bytes=WHOLE_LOG_BYTES)
        self._apply = apply
        self._failed = failed
        self._forget = forget
        self._warn = warn
        self._follower: asyncio.Task[None] | None = None
        self._advanced = asyncio.Condition()
        self._applied: dict[Place, int] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the topics."""
        return tuple(topic.name for topic in self._topics)

    async def look(self) -> Mapping[Place, Span]:
        """Return where each partition begins and ends now. Raises ``TransientError``."""
        return await self._cursor.look()

    async def start(self) -> None:
        """Read up to the present end, then go on following in the background. Raises TransientError: a topic
        does not exist, or the broker does not answer."""
        self._applied = {}
        await self._cursor.open()
        self._warn_if_truncated({place: span.begin for place, span in self._cursor.spans.items()})
        self._cursor.start_from(await self._starts())
        await self._read_to({place: span.end for place, span in self._cursor.spans.items()})
        self._follower = asyncio.create_task(self._follow(), name="log-reader")
        self._follower.add_done_callback(reporting(self._failed))

    async def stop(self) -> None:
        await end_all(self._follower)
        self._follower = None
        await self._cursor.close()

    async def refresh(self, *, timeout_seconds: float = 30.0) -> None:
        """Wait until everything that is on the log now has been applied. Raises TransientError: the broker
        did not deliver in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                ends = {place: span.end for place, span in (await self._cursor.look()).items()}
                async with self._advanced:
                    await self._advanced.wait_for(
                        lambda: all(self._applied.get(place, -1) >= end for place, end in ends.items())
                    )
        except TimeoutError as error:
            raise LogUnreadable(
                f"cannot read {', '.join(self.names)} to the end in {timeout_seconds:g} s"
            ) from error

    def upto(self, topic: TopicSpec) -> dict[str, int]:
        """Return, by partition, the offset up to which every event of ``topic`` has been applied."""
        applied = {number: end for (name, number), end in self._applied.items() if name == topic.name}
        return {str(partition): applied[partition] for partition in sorted(applied)}

    async def _starts(self) -> dict[Place, int]:
        begins: Mapping[str, Mapping[str, int] | None] = await self._begins() if self._begins else {}
        starts: dict[Place, int] = {}
        for (name, number), span in self._cursor.spans.items():
            of_topic = begins.get(name, {})
            starts[name, number] = span.end if of_topic is None else of_topic.get(str(number), span.begin)
        return starts

    async def _read_to(self, ends: Mapping[Place, int]) -> None:
        pending: list[tuple[int, int, Undecoded]] = []
        rank = {name: n for n, name in enumerate(self.names)}
        stamps: dict[Place, int] = {}
        # Without a limit: an outage delays the start, and reading anew would only delay it more.
        async for records in self._cursor.upto(ends, patience=math.inf):
            for record in records:
                if self._begins is None:
                    place = record.position.place
                    # Another process's clock may be behind. Within a partition log order counts all the same.
                    stamps[place] = max(stamps.get(place, 0), record.logged_ms or 0)
                    pending.append((stamps[place], rank[place[0]], record))
                else:
                    await self._decode_and_apply(record)
        pending.sort(key=lambda one: (*one[:2], one[2].position.partition, one[2].position.offset))
        for _, _, record in pending:
            await self._decode_and_apply(record)
        await self._advance()

    async def _follow(self) -> None:
        while True:
            try:
                if added := await self._cursor.take_up_added():
                    log.info("view_reads_added_partitions", partitions=[f"{name}[{n}]" for name, n in added])
                records = await self._cursor.fetch()
            except LogUnreadable as error:
                if refusal := not_allowed(error):
                    raise refusal from error
                log.warning("view_read_failed", error=str(error))
                await asyncio.sleep(1.0)
                continue
            if self._begins is not None:
                await self._require_unbroken(records)
            for record in records:
                await self._decode_and_apply(record)
            await self._advance()

    async def _require_unbroken(self, records: Sequence[Undecoded]) -> None:
        """Check that nothing was deleted between what was applied and ``records``, which were fetched next:
        the client goes on at the beginning of the log by itself. Raises TransientError: some were deleted."""
        reached, skips = self._applied.copy(), False
        for at in [record.position for record in records]:
            skips |= reached.get(at.place, at.offset) < at.offset
            reached[at.place] = at.offset + 1
        skips |= any(reached.get(place, at) < at for place, at in (await self._cursor.reached()).items())
        if not skips:  # most logs have no gap, so that the broker is seldom asked
            return
        spans = await self._cursor.look()
        lost = {
            place: at for place, at in self._applied.items() if place in spans and at < spans[place].begin
        }
        if lost:
            places = ", ".join(f"{name}[{n}] from offset {at}" for (name, n), at in sorted(lost.items()))
            raise TransientError(f"records were deleted from the log before this process read them: {places}")

    async def _advance(self) -> None:
        """Note that every record that was fetched has been applied."""
        reached = await self._cursor.reached()
        if reached != self._applied:
            async with self._advanced:
                self._applied = reached
                self._advanced.notify_all()

    def _warn_if_truncated(self, begins: Mapping[Place, int]) -> None:
        for (name, number), begin in begins.items():
            if begin > 0 and BY_NAME[name].is_kept_for_ever:
                text = (
                    f"partition {number} of {name} begins at offset {begin}: earlier "
                    "events were deleted from the log, so this service does not know them. The topic should "
                    "be kept for ever: compare its settings with `tunewheel admin topics`"
                )
                self._warn(f"truncated {name}[{number}]", text)

    async def _decode_and_apply(self, record: Undecoded) -> None:
        if self._keep is not None and await self._keep(record):
            return
        event = self.event_of(record)
        if event is not None:
            applying = self._apply(event, record.position)
            if inspect.isawaitable(applying):
                await applying

    def event_of(self, record: Undecoded) -> Envelope[Any] | None:
        """Return a record's event; None: it cannot be read, does not count, or is a tombstone, which
        ``forget`` gets."""
        topic = BY_NAME[record.position.topic]
        if topic.is_tombstone(record.value):
            self._newer.has_read(topic, record.key)
            self._forget(topic, record.key_text)
            return None
        try:
            envelope = self._check(topic, decode(record), record)
        except InvalidEvent as error:
            self._newer.skipped(topic, record.key, record.position, error)
            return None
        self._newer.left_out(topic, envelope.unknown)
        self._newer.has_read(topic, record.key)
        return envelope


class View(Generic[E]):
    """The latest event per record key of one topic. A tombstone removes its key."""

    def __init__(
        self, settings: KafkaSettings, topic: TopicSpec, *, failed: Failed, newer: NewerReleases | None = None
    ) -> None:
        self._latest: dict[str, Envelope[E]] = {}
        self._observers: list[Callable[[Envelope[E]], None]] = []
        self._removal_observers: list[Callable[[str], None]] = []
        self.reader = LogReader(
            settings, (topic,), self._remember, failed=failed, forget=self._forget, newer=newer
        )

    def get(self, key: str) -> Envelope[E] | None:
        return self._latest.get(key)

    def values(self) -> list[Envelope[E]]:
        return list(self._latest.values())

    def on_change(self, observer: Callable[[Envelope[E]], None]) -> None:
        """Call ``observer`` with every event, including those of the initial read."""
        self._observers.append(observer)

    def on_removal(self, observer: Callable[[str], None]) -> None:
        """Call ``observer`` with every key that a tombstone removes."""
        self._removal_observers.append(observer)

    async def refresh(self) -> None:
        """Read up to the present end; see ``LogReader.refresh``."""
        await self.reader.refresh()

    async def fresh(self, key: str) -> Envelope[E] | None:
        """Return the latest event for ``key``. If the key is unknown, read up to the present end first."""
        if key not in self._latest:
            await self.refresh()
        return self._latest.get(key)

    def _remember(self, envelope: Envelope[Any], _: Position) -> None:
        self._latest[envelope.data.record_key] = envelope
        for observer in self._observers:
            observer(envelope)

    def _forget(self, _: TopicSpec, key: str) -> None:
        self._latest.pop(key, None)
        for observer in self._removal_observers:
            observer(key)
