"""The first of several things that are waited for ends the others, whatever it is and whoever gives up."""

from __future__ import annotations

import asyncio

import pytest
from tunewheel_runtime.waiting import first_of


class Endless:
    """Waits for ever, and remembers that it was cancelled and has ended."""

    def __init__(self) -> None:
        self.begun, self.ended = asyncio.Event(), False

    async def wait(self) -> None:
        self.begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # what it cleans up takes a turn of the loop
            self.ended = True


async def failing() -> None:
    raise ValueError("of its own")


async def test_the_first_counts_and_the_others_have_ended() -> None:
    other = Endless()
    assert await first_of(other.wait(), asyncio.sleep(0, "first")) == (None, "first")
    assert other.ended


async def test_the_first_tasks_error_is_raised_after_the_others_have_ended() -> None:
    other = Endless()
    with pytest.raises(ValueError, match="of its own"):
        await first_of(other.wait(), failing())
    assert other.ended


async def test_a_caller_that_is_cancelled_ends_them_all() -> None:
    waits = [Endless(), Endless()]
    caller = asyncio.create_task(first_of(*(one.wait() for one in waits)))
    for one in waits:
        await one.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert all(one.ended for one in waits)
