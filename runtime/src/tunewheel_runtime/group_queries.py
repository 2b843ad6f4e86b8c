"""Questions about many consumer groups, a few at a time, so that a broker is not flooded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

GROUPS_AT_ONCE = 8
"""Most groups that are asked about at a time."""
T = TypeVar("T")
U = TypeVar("U")


async def each(items: Iterable[T], ask: Callable[[T], Awaitable[U]]) -> list[U]:
    """Return what ``ask`` returns for each of ``items``, in order; ``GROUPS_AT_ONCE`` are asked at a time."""
    places = asyncio.Semaphore(GROUPS_AT_ONCE)

    async def one(item: T) -> U:
        async with places:
            return await ask(item)

    return await asyncio.gather(*map(one, items))
