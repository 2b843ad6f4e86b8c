"""Jobs beside each other, whatever partition their events lie on, without losing one of them.

Kafka knows one number per partition: everything before it is done. Jobs end in any order, so what has ended
is committed only as far as nothing before it is still under way. A worker that dies is told the rest again,
and so is one whose group rebalances, in the middle of its jobs.
"""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable

from aiokafka import AIOKafkaConsumer, TopicPartition

from tunewheel_runtime.consuming import commit_past
from tunewheel_runtime.handling import Record

Place = tuple[TopicPartition, int]
Work = Callable[[], Awaitable[None]]


class ConcurrentJobs:
    """Runs the jobs of a service as they come; whoever is called may let them wait.

    ``guard`` is what awaits a job, and sees its error.
    """

    def __init__(self, guard: Callable[[Awaitable[None]], Awaitable[None]]) -> None:
        self._guard = guard
        self._tasks: dict[Place, asyncio.Task[None]] = {}
        self._open: defaultdict[TopicPartition, dict[int, bool]] = defaultdict(dict)
        """Of each partition, the offsets that were given and not committed: whether they are settled."""

    def start(self, record: Record, consumer: AIOKafkaConsumer, work: Work) -> None:
        """Run ``work`` on ``record`` now. One that comes again waits until the job that it has already ends,
        and is left alone where that settled it."""
        place = TopicPartition(record.topic, record.partition), record.offset
        self._leave_to_others(*place)
        self._open[place[0]].setdefault(place[1], False)
        earlier = self._tasks.get(place)

        async def run() -> None:
            if earlier is not None:
                await asyncio.wait({earlier})
            settled = self._open[place[0]].get(place[1])
            if settled:
                await self.settle(record, consumer)
            elif settled is not None:
                await work()

        task = asyncio.create_task(self._ending(place, run()), name=f"job-{place[0]}-{place[1]}")
        self._tasks[place] = task

    async def _ending(self, place: Place, job: Awaitable[None]) -> None:
        try:
            await self._guard(job)
        finally:
            if self._tasks.get(place) is asyncio.current_task():
                del self._tasks[place]

    def _leave_to_others(self, partition: TopicPartition, given: int) -> None:
        """Forget the jobs that ended unsettled, of offsets before ``given``.

        Such a job lost its lease with the partition. Records come in order: when the partition is back and
        its first record is behind the job's, another worker has settled the job. Until then the job's offset
        holds up all later ones, since this worker may be given the record again, and a worker that stops
        must not commit past it.
        """
        offsets = self._open[partition]
        ended = [
            offset
            for offset, settled in offsets.items()
            if offset < given and not settled and (partition, offset) not in self._tasks
        ]
        for offset in ended:
            del offsets[offset]

    async def settle(self, record: Record, consumer: AIOKafkaConsumer) -> None:
        """Commit past ``record``, and what is settled behind it, once nothing before them is under way."""
        partition = TopicPartition(record.topic, record.partition)
        offsets = self._open[partition]
        offsets[record.offset] = True
        first = min((offset for offset, settled in offsets.items() if not settled), default=None)
        done = [offset for offset in offsets if first is None or offset < first]
        if done and await commit_past(consumer, {partition: max(done)}):
            for offset in done:
                offsets.pop(offset, None)

    async def ended(self) -> None:
        """Return when every job has ended, however it did."""
        while self._tasks:
            await asyncio.wait([*self._tasks.values()])
