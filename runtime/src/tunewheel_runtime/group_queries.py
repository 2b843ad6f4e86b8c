"""Queries many consumer groups, a few at a time, so that the broker is not flooded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

GROUPS_AT_ONCE = 8
"""Most groups that are queried at the same time."""
T = TypeVar("T")
U = TypeVar("U")


async def each(items: Iterable[T], ask: Callable[[T], Awaitable[U]]) -> list[U]:
    """Return the results of ``ask`` for ``items``, in order. At most ``GROUPS_AT_ONCE`` calls run at a
    time."""
    places = asyncio.Semaphore(GROUPS_AT_ONCE)

    async def one(item: T) -> U:
        async with places:
            return await ask(item)

    return await asyncio.gather(*map(one, items))
