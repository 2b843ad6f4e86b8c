"""What callers have used: counted in this process, and in Redis for all gateways together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from tunewheel_serve_gateway.admission import Charge, Count

if TYPE_CHECKING:
    from limits.aio.storage import RedisStorage

log = structlog.get_logger(__name__)

PREFIX = "tunewheel:limits"
CONNECTIONS = 32
PAUSE_SECONDS = 1.0
"""Redis that failed is left alone for so long: an outage costs one request in a second its time-out."""
PREVIOUS_SECONDS = 1.0
"""The minute before changes only by answers that end late, so what is known of it counts for so long."""
MOST_KNOWN = 10_000


class Tally:
    """What one caller has used of one limit, counted in this process."""

    __slots__ = ("_current", "_number", "_previous")

    def __init__(self) -> None:
        self._number, self._current, self._previous = -1, 0, 0

    def add(self, number: int, amount: int) -> Count:
        """Add ``amount`` (negative: take back) to the window ``number``: this one, or the one before."""
        if number > self._number:
            self._previous = self._current if number == self._number + 1 else 0
            self._number, self._current = number, 0
        if number == self._number:
            self._current = max(0, self._current + amount)
        elif number == self._number - 1:
            self._previous = max(0, self._previous + amount)
        return Count(self._current, self._previous)


class SharedCounts:
    """The counts of all gateways, in Redis, by ``limits``' storage: one command per limit of the caller.

    No call takes longer than ``timeout_seconds`` or raises: None says that Redis is away.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``url``: ``redis://…`` or ``rediss://…``, as redis-py reads it."""
        from limits.aio.storage import RedisStorage
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # One more try: the server may have closed a connection that was kept.
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 1), "socket_connect_timeout": timeout_seconds}
        self._pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, **options)
        self._storage: RedisStorage = RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix=PREFIX,
            connection_pool=self._pool,  # type: ignore[arg-type]
        )
        self._timeout = timeout_seconds
        self._clock = clock
        self._ask_at = 0.0
        self._known: dict[str, tuple[float, int]] = {}
        self.is_away = False

    async def close(self) -> None:
        await self._pool.disconnect()

    async def add(self, account: str, charges: Sequence[Charge]) -> list[Count] | None:
        """Add each charge to what ``account`` has used; return what is used now, None where Redis is away."""
        from limits.errors import StorageError

        if self._clock() < self._ask_at:
            return None
        try:
            async with asyncio.timeout(self._timeout):
                found = await asyncio.gather(*(self._add(account, charge) for charge in charges))
        except (StorageError, OSError, TimeoutError) as error:
            self._fail(error)
            return None
        if self.is_away:
            self.is_away = False
            log.info("limits_shared_again")
        return found

    async def _add(self, account: str, charge: Charge) -> Count:
        rule, window, amount = charge
        key = f"{account}:{rule.name}"
        # Kept for another window, in which it is the one before.
        current = await self._storage.incr(f"{key}:{window.number}", int(2 * window.seconds) + 1, amount)
        previous = await self._previous(key, window.number - 1) if rule.period == "minute" else 0
        return Count(current, previous)

    async def _previous(self, key: str, number: int) -> int:
        name, now = f"{key}:{number}", self._clock()
        known = self._known.get(name)
        if known is not None and now < known[0] + PREVIOUS_SECONDS:
            return known[1]
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        found = max(0, await self._storage.get(name))
        self._known[name] = now, found
        return found

    def _fail(self, error: Exception) -> None:
        self._ask_at = self._clock() + PAUSE_SECONDS
        if not self.is_away:
            self.is_away = True
            log.warning("limits_not_shared", error=str(error) or type(error).__name__)
