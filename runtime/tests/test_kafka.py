"""How a client leaves a broker that is away."""

from __future__ import annotations

import asyncio

import pytest
from tunewheel_runtime.kafka import stop_in_full


class Consumer:
    """Stops as aiokafka's does in an outage: what it cancels comes out of the first call."""

    def __init__(self) -> None:
        self.fetches = [asyncio.create_task(asyncio.sleep(3_600)) for _ in range(2)]

    async def stop(self) -> None:
        while self.fetches:
            fetch = self.fetches.pop()
            fetch.cancel()
            await fetch


async def test_who_stops_a_consumer_in_an_outage_is_not_taken_for_cancelled() -> None:
    consumer = Consumer()
    await stop_in_full(consumer.stop)
    assert consumer.fetches == []


async def test_who_is_cancelled_while_stopping_stays_so() -> None:
    entered = asyncio.Event()

    async def stop() -> None:
        entered.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(stop_in_full(stop))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
