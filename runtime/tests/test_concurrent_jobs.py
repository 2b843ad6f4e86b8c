"""Jobs end in any order, and what is committed is what has ended without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from tunewheel_runtime.concurrent_jobs import ConcurrentJobs


class Consumer:
    """Remembers what was committed, like a broker."""

    def __init__(self) -> None:
        self.committed: list[tuple[int, int]] = []
        self.held = {TopicPartition("t", 0), TopicPartition("t", 1)}

    def assignment(self) -> set[TopicPartition]:
        return self.held

    async def commit(self, offsets: dict[TopicPartition, int]) -> None:
        self.committed += [(tp.partition, offset) for tp, offset in offsets.items()]

    async def position(self, partition: TopicPartition) -> int:
        return 1_000


class Jobs:
    """Jobs that end when they are told to, on a ``ConcurrentJobs`` and a ``Consumer``."""

    def __init__(self) -> None:
        self.consumer: Any = Consumer()
        self.concurrent = ConcurrentJobs(_bare)
        self.began: list[int] = []
        self._ends: dict[int, asyncio.Event] = {}
        self._lost: set[int] = set()

    async def start(
        self, *offsets: int, partition: int = 0, key: bytes = b"k", in_order: bool = False
    ) -> None:
        for offset in offsets:
            record: Any = SimpleNamespace(topic="t", partition=partition, offset=offset, key=key)
            self._ends.setdefault(offset, asyncio.Event())
            self.concurrent.start(record, self.consumer, self._work(record, in_order))
        await _settled()

    def _work(self, record: Any, in_order: bool) -> Callable[[], Awaitable[None]]:
        async def work() -> None:
            if in_order:
                await self.concurrent.turn(record)
            self.began.append(record.offset)
            await self._ends[record.offset].wait()
            self._ends[record.offset].clear()
            if record.offset not in self._lost:
                await self.concurrent.settle(record, self.consumer)

        return work

    async def end(self, *offsets: int) -> None:
        for offset in offsets:
            self._ends[offset].set()
            await _settled()

    async def lose(self, offset: int) -> None:
        """End a job whose lease is gone."""
        self._lost.add(offset)
        await self.end(offset)
        self._lost.discard(offset)


async def _bare(job: Awaitable[None]) -> None:
    await job


async def _settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_jobs_of_one_partition_run_beside_each_other() -> None:
    jobs = Jobs()
    await jobs.start(1, 2, 3)
    assert jobs.began == [1, 2, 3]


async def test_nothing_is_committed_past_a_job_that_has_not_ended() -> None:
    jobs = Jobs()
    await jobs.start(1, 2, 3)
    await jobs.start(7, partition=1)
    await jobs.end(3, 2)
    assert jobs.consumer.committed == []
    await jobs.end(7)
    assert jobs.consumer.committed == [(1, 8)]
    await jobs.end(1)
    assert jobs.consumer.committed == [(1, 8), (0, 4)]
    await jobs.concurrent.ended()


async def test_a_record_that_comes_again_is_not_worked_on_twice() -> None:
    jobs = Jobs()
    await jobs.start(1, 2)
    await jobs.start(1, 2)  # a rebalance: neither was committed
    assert jobs.began == [1, 2]
    await jobs.end(2)
    await jobs.start(2)
    await jobs.end(1)
    assert jobs.began == [1, 2]
    assert jobs.consumer.committed[-1] == (0, 3)
    assert max(jobs.consumer.committed) == (0, 3)


async def test_a_job_that_lost_its_lease_is_run_again_when_it_comes_again() -> None:
    jobs = Jobs()
    await jobs.start(1, 2)
    await jobs.start(1)
    await jobs.lose(1)
    assert jobs.began == [1, 2, 1]
    await jobs.end(2, 1)
    assert jobs.consumer.committed == [(0, 3)]


async def test_a_job_settled_by_another_worker_does_not_hold_back_commits() -> None:
    jobs = Jobs()
    await jobs.start(1)
    await jobs.lose(1)  # and never comes back: its new owner committed it
    await jobs.start(2)
    await jobs.end(2)
    assert jobs.consumer.committed == [(0, 3)]


async def test_nothing_is_committed_past_a_job_that_ended_unsettled() -> None:
    """The service stops, or fails: the one that waited ends at once, the other one's result is on the log."""
    jobs = Jobs()
    await jobs.start(5, 6)
    await jobs.lose(5)
    await jobs.end(6)
    assert jobs.consumer.committed == []
    await jobs.start(5, 6)  # the partition went away and is back
    assert jobs.began == [5, 6, 5]
    await jobs.end(5)
    assert jobs.consumer.committed[-1] == (0, 7)


async def test_a_finished_job_that_was_not_committed_is_committed_when_redelivered() -> None:
    jobs = Jobs()
    await jobs.start(1)
    jobs.consumer.held = set()
    await jobs.end(1)
    assert jobs.consumer.committed == []
    jobs.consumer.held = {TopicPartition("t", 0)}
    await jobs.start(1)
    assert jobs.began == [1]
    assert jobs.consumer.committed == [(0, 2)]


async def test_jobs_of_one_key_run_in_the_order_of_the_log_beside_those_of_other_keys() -> None:
    jobs = Jobs()
    await jobs.start(1, 2, 3, key=b"flood", in_order=True)
    await jobs.start(4, key=b"other", in_order=True)
    await jobs.start(2, partition=1, key=b"flood", in_order=True)
    assert jobs.began == [1, 4, 2]
    await jobs.end(4, 1)
    assert jobs.began == [1, 4, 2, 2]
    assert (0, 5) not in jobs.consumer.committed, "2 and 3 are not done"


async def test_the_order_of_a_key_outlives_a_partition_that_goes_away_and_comes_back() -> None:
    """Whoever comes first of the records that are delivered again waits for the first of its key."""
    jobs = Jobs()
    await jobs.start(1, 2, in_order=True)
    await jobs.start(1, 2, in_order=True)  # delivered again while the first still stops
    await jobs.lose(1)
    assert jobs.began == [1, 1]
    await jobs.end(1)
    assert jobs.began == [1, 1, 2]
    await jobs.end(2)
    assert jobs.began == [1, 1, 2]
    assert jobs.consumer.committed[-1] == (0, 3)


async def test_a_job_that_another_worker_settled_holds_back_no_job_of_its_key() -> None:
    jobs = Jobs()
    await jobs.start(1, in_order=True)
    await jobs.lose(1)
    await jobs.start(2, in_order=True)
    assert jobs.began == [1, 2]
    await jobs.end(2)
    assert jobs.consumer.committed == [(0, 3)]


async def test_a_job_that_stops_after_another_worker_settled_it_holds_back_no_job_of_its_key() -> None:
    """The partition is back with the next record before the one that lost its lease has ended."""
    jobs = Jobs()
    await jobs.start(1, 2, in_order=True)
    await jobs.start(3, key=b"other", in_order=True)
    await jobs.lose(1)
    assert jobs.began == [1, 3, 2]
    await jobs.end(2, 3)
    assert jobs.consumer.committed == [], "nobody here knows that 1 is done until a later record says so"
    await jobs.start(4, in_order=True)
    await jobs.end(4)
    assert jobs.consumer.committed == [(0, 5)]


@pytest.mark.parametrize("stops_late", [False, True])
async def test_jobs_that_lost_their_leases_together_run_in_order_when_they_come_again(
    stops_late: bool,
) -> None:
    jobs = Jobs()
    await jobs.start(1, 2, 3, in_order=True)
    await jobs.lose(1)
    if not stops_late:
        await jobs.lose(2)
        await jobs.lose(3)
    before = list(jobs.began)
    await jobs.start(1, 2, 3, in_order=True)
    if stops_late:
        await jobs.lose(2)
    assert jobs.began == [*before, 1]
    await jobs.end(1)
    assert jobs.began == [*before, 1, 2]
    await jobs.end(2, 3)
    assert jobs.began == [*before, 1, 2, 3]
    assert jobs.consumer.committed[-1] == (0, 4)
