"""Waits for conditions, never for seconds."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 300.0


async def until(
    condition: Callable[[], Any], what: str = "the condition", *, patience: float = PATIENCE_SECONDS
) -> Any:
    """Return what ``condition``, a function or a coroutine function, returns once that is truthy."""
    try:
        async with asyncio.timeout(patience):
            seconds = 0.005
            while True:
                found = condition()
                if inspect.isawaitable(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(seconds)
                seconds = min(1.5 * seconds, 0.02)  # a look may cost a request
    except TimeoutError:
        raise AssertionError(f"{what} did not come true in {patience} s") from None


def wait_for(
    condition: Callable[[], Any], what: str = "the condition", *, patience: float = PATIENCE_SECONDS
) -> Any:
    """Return what ``condition`` returns once that is truthy; for what runs in another thread or process."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true in {patience} s"
        time.sleep(0.01)
    return found
