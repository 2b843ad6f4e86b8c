"""Waiting for the first of several things."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


async def first_of(*waits: Coroutine[Any, Any, Any]) -> tuple[Any, ...]:
    """Wait until one of ``waits`` is over. Return its result in its place and None for the others, which were
    cancelled and have ended. What it raised is raised here. A caller that is cancelled cancels them all."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tuple(task.result() if task.done() else None for task in tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
