from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiokafka import TopicPartition
from tunewheel_runtime.jobs import Beside


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def job(log: list[str], name: str, end: asyncio.Event) -> Callable[[], Awaitable[None]]:
    async def work() -> None:
        log.append(f"{name} began")
        await end.wait()
        log.append(f"{name} ended")

    return work


async def test_jobs_of_one_partition_come_in_order_those_of_others_beside_them() -> None:
    beside, log, end, other = Beside(), [], asyncio.Event(), asyncio.Event()
    beside.start(TopicPartition("t", 0), job(log, "first", end))
    beside.start(TopicPartition("t", 0), job(log, "second", end))
    beside.start(TopicPartition("t", 1), job(log, "other", other))
    await settle()
    assert log == ["first began", "other began"]
    end.set()
    await settle()
    assert log == ["first began", "other began", "first ended", "second began", "second ended"]
    other.set()
    await beside.ended()
    assert log[-1] == "other ended"


async def test_a_job_that_fails_lets_the_next_one_in() -> None:
    beside, log, end = Beside(), [], asyncio.Event()

    async def failing() -> None:
        raise asyncio.CancelledError

    beside.start(TopicPartition("t", 0), failing)
    beside.start(TopicPartition("t", 0), job(log, "next", end))
    end.set()
    await beside.ended()
    assert log == ["next began", "next ended"]
