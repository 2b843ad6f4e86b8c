"""Runs jobs concurrently, also those of one partition, without losing any.

Kafka stores one committed offset per partition, and all records before it count as done. Jobs end in any
order, so an offset is committed only once all earlier jobs of its partition are done. After a crash or a
rebalance Kafka delivers the uncommitted records again, even those whose jobs are running or done.

Jobs of one record key may have to run in the order of the log (``turn``): each begins once the one before it
is settled, so it can read its result on the log. The jobs of other keys do not wait for them.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from aiokafka import AIOKafkaConsumer, TopicPartition

from tunewheel_runtime.consuming import commit_past
from tunewheel_runtime.handling import Record

Place = tuple[TopicPartition, int]
Work = Callable[[], Awaitable[None]]


@dataclass(slots=True)
class _Open:
    """A record that was delivered, and whose offset is not committed."""

    key: bytes | None
    is_settled: bool = False
    turn: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once no earlier record of the key holds this one back."""


class ConcurrentJobs:
    """Starts the jobs of a service as their events arrive. A job may itself wait for its turn.

    ``guard`` awaits a job and handles its error.
    """

    def __init__(self, guard: Callable[[Awaitable[None]], Awaitable[None]]) -> None:
        self._guard = guard
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._open: defaultdict[TopicPartition, dict[int, _Open]] = defaultdict(dict)
        """By partition and offset."""
        self._unsettled: defaultdict[tuple[TopicPartition, bytes | None], list[int]] = defaultdict(list)
        """By partition and key: the offsets of the open records that neither are settled nor ended, in order.
        They hold back the later ones."""
        self._given_up: defaultdict[TopicPartition, set[int]] = defaultdict(set)
        """By partition: the offsets whose job ended without settling its record."""

    def start(self, record: Record, consumer: AIOKafkaConsumer, work: Work) -> None:
        """Start ``work`` on ``record`` now. A record that is delivered again waits for its running job; if
        that job settles the record, nothing more is done."""
        place = TopicPartition(record.topic, record.partition), record.offset
        self._leave_to_others(*place)
        self._given_up[place[0]].discard(place[1])
        self._queue(*place, self._open[place[0]].setdefault(place[1], _Open(record.key)))
        earlier = self._tasks.get(place)

        async def run() -> None:
            if earlier is not None:
                await asyncio.wait({earlier})
            opened = self._open[place[0]].get(place[1])
            if opened is not None and opened.is_settled:
                await self.settle(record, consumer)
            elif opened is not None:
                await work()

        task = asyncio.create_task(self._ending(place, run()), name=f"job-{place[0]}-{place[1]}")
        self._tasks[place] = task

    async def _ending(self, place: Place, job: Awaitable[None]) -> None:
        try:
            await self._guard(job)
            if self._tasks.get(place) is asyncio.current_task() and place[1] in self._open[place[0]]:
                # Settled or not. A job without its lease may end late, when another worker has settled it
                # and the next one of its key is here already. Whoever lost the same lease sees that itself.
                self._close(*place)
        finally:
            if self._tasks.get(place) is asyncio.current_task():
                del self._tasks[place]
                opened = self._open[place[0]].get(place[1])
                if opened is not None and not opened.is_settled:
                    self._given_up[place[0]].add(place[1])

    def _queue(self, partition: TopicPartition, offset: int, opened: _Open) -> None:
        """Let ``offset`` hold back the later records of its key, also if it did not when it came before."""
        unsettled = self._unsettled[partition, opened.key]
        if not opened.is_settled and offset not in unsettled:
            insort(unsettled, offset)
            for later in unsettled[bisect_left(unsettled, offset) :]:
                self._open[partition][later].turn.clear()
        self._pass_turn(partition, opened.key)

    def _leave_to_others(self, partition: TopicPartition, first: int) -> None:
        """Forget the jobs before offset ``first`` that ended without being settled.

        Such a job lost its lease when the partition moved away. Records are delivered in order. So if the
        partition comes back with a later record, another worker has settled the job. Until then the job's
        offset blocks the commit of later ones: its record may be delivered to this worker again, and must not
        be committed past.
        """
        for offset in [one for one in self._given_up[partition] if one < first]:
            self._given_up[partition].discard(offset)
            if offset in self._open[partition]:
                self._close(partition, offset)
                del self._open[partition][offset]

    def _close(self, partition: TopicPartition, offset: int) -> None:
        """Note that ``offset`` holds back no other record of its key."""
        key = self._open[partition][offset].key
        unsettled = self._unsettled[partition, key]
        if offset in unsettled:
            unsettled.remove(offset)
        self._pass_turn(partition, key)

    def _pass_turn(self, partition: TopicPartition, key: bytes | None) -> None:
        if not (unsettled := self._unsettled[partition, key]):
            del self._unsettled[partition, key]
            return
        self._open[partition][unsettled[0]].turn.set()

    async def turn(self, record: Record) -> None:
        """Return once no earlier record of the same key and partition waits or runs."""
        await self._open[TopicPartition(record.topic, record.partition)][record.offset].turn.wait()

    async def settle(self, record: Record, consumer: AIOKafkaConsumer) -> None:
        """Note that ``record`` is done. Commit as far as all earlier records of the partition are done."""
        partition = TopicPartition(record.topic, record.partition)
        offsets = self._open[partition]
        offsets[record.offset].is_settled = True
        self._close(partition, record.offset)
        first = min((offset for offset, one in offsets.items() if not one.is_settled), default=None)
        done = [offset for offset in offsets if first is None or offset < first]
        if done and await commit_past(consumer, {partition: max(done)}):
            for offset in done:
                offsets.pop(offset, None)

    async def ended(self) -> None:
        """Return when every job has ended, successfully or not."""
        while self._tasks:
            await asyncio.wait([*self._tasks.values()])
