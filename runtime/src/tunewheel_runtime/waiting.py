"""Waits for coroutines: for the first of several, for a limited time, until all are cancelled; and tells how
a task ended for which nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any


async def first_of(*waits: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Wait until the first of ``waits`` has ended, and cancel the others.

    Return a tuple with its result at its position, and None for the others. If it raised, its exception is
    raised. All have ended on return. If the caller is cancelled, all are cancelled.
    """
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tuple(task.result() if task.done() else None for task in tasks)
    finally:
        await end_all(*tasks)


async def end_all(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel ``tasks`` and return once all have ended, however they end. None stands for no task."""
    begun = [task for task in tasks if task is not None]
    for task in begun:
        task.cancel()
    await asyncio.gather(*begun, return_exceptions=True)


def reporting(failed: Callable[[BaseException], None]) -> Callable[[asyncio.Future[Any]], None]:
    """Return a callback (``add_done_callback``) that passes the error of a task to ``failed``, if it has
    one."""

    def ended(task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            failed(error)

    return ended


async def within(seconds: float, wait: Awaitable[object]) -> None:
    """Await ``wait``, and cancel it after ``seconds``."""
    # Not wait_for: Python 3.11's loses a cancellation that comes together with the end.
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await wait
