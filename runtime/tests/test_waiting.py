"""The first of several things that are waited for ends the others, whatever it is and whoever gives up."""

from __future__ import annotations

import asyncio
import math

import pytest
from tunewheel_runtime.waiting import end_all, first_of, reporting, within


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


async def test_all_have_ended_whether_they_were_begun_or_failed() -> None:
    waiting, failed = Endless(), asyncio.create_task(failing())
    task = asyncio.create_task(waiting.wait())
    await waiting.begun.wait()
    await end_all(task, None, failed)
    assert waiting.ended
    assert task.cancelled()
    assert isinstance(failed.exception(), ValueError)


async def test_a_wait_ends_after_its_time_or_before() -> None:
    endless = Endless()
    await within(0, endless.wait())
    await within(0.01, endless.wait())
    assert endless.ended
    happened = asyncio.Event()
    asyncio.get_running_loop().call_soon(happened.set)
    await within(math.inf, happened.wait())


async def test_a_caller_that_waits_within_a_time_can_be_cancelled() -> None:
    endless = Endless()
    caller = asyncio.create_task(within(1e6, endless.wait()))
    await endless.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller


async def test_the_error_of_a_task_is_passed_on_and_its_end_or_cancellation_is_not() -> None:
    errors: list[BaseException] = []

    async def fail() -> None:
        raise ValueError("gone")

    tasks = [asyncio.create_task(work) for work in (fail(), asyncio.sleep(0), asyncio.sleep(3600))]
    for task in tasks:
        task.add_done_callback(reporting(errors.append))
    await asyncio.wait(tasks[:2])
    await end_all(*tasks)
    assert [str(error) for error in errors] == ["gone"]
