"""Waits for conditions, never for seconds."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

PATIENCE_SECONDS = 300.0


async def until(
    condition: Callable[[], Any], what: str = "the condition", *, patience: float = PATIENCE_SECONDS
) -> Any:
    """Return what ``condition``, a function or a coroutine function, returns once that is truthy."""
    try:
        async with asyncio.timeout(patience):
            while True:
                found = condition()
                if inspect.isawaitable(found):
                    found = await found
                if found:
                    return found
                await asyncio.sleep(0.005)
    except TimeoutError:
        raise AssertionError(f"{what} did not come true in {patience} s") from None
