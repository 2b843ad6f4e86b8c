"""Waits for the first of several coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
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
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
