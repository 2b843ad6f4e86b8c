"""What callers have used: counted in this process, and in Redis for all gateways together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import structlog

from tunewheel_serve_gateway.limits.admission import Charge, Count

if TYPE_CHECKING:
    from limits.aio.storage import RedisStorage

T = TypeVar("T")
log = structlog.get_logger(__name__)

PREFIX = "tunewheel:limits"
CONNECTIONS = 32
PAUSE_SECONDS = 1.0
"""Redis that failed is left alone for so long: an outage costs one request in a second its time-out."""
PREVIOUS_SECONDS = 1.0
"""The minute before changes only by answers that end late, so what is known of it counts for so long."""
MOST_KNOWN = 10_000
MOST_OWED = 10_000
"""Counters of Redis whose corrections wait; beyond it, the one that waits longest is let go."""


class Tally:
    """A caller's use of one limit, as this process counts it."""

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


class Owed(NamedTuple):
    """What one counter of Redis is to be corrected by. ``until``: from then on it counts for nothing."""

    amount: int
    expiry: int
    until: float


class SharedCounts:
    """The counts of all gateways, in Redis, by ``limits``' storage: one command per limit of the caller.

    No call takes longer than ``timeout_seconds`` or raises: None says that Redis is away. Corrections of what
    was charged then wait until it is there again. A command that had no answer in time may have been carried
    out: it is neither sent again nor taken back.
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
        self._owed: dict[str, Owed] = {}
        self._paying: asyncio.Task[None] | None = None
        self.is_away = False

    async def close(self) -> None:
        if self._paying is not None:
            await self._paying
        await self._pool.disconnect()

    async def add(self, account: str, charges: Sequence[Charge]) -> list[Count] | None:
        """Add each charge to what ``account`` has used; return what is used now, None where Redis is away.
        Charges that Redis took before it failed are then taken back."""
        if self._clock() < self._ask_at:
            return None
        taken: list[Charge] = []
        found = await self._ask([self._add(account, charge, taken) for charge in charges])
        if isinstance(found, Exception):
            for rule, window, amount in taken:
                self._owe(account, Charge(rule, window, -amount))
            return None
        if self.is_away:
            self.is_away = False
            log.info("limits_shared_again")
        if self._owed and (self._paying is None or self._paying.done()):
            self._paying = asyncio.create_task(self._pay())
        return found

    async def correct(self, account: str, charges: Sequence[Charge]) -> None:
        """Add each charge to what ``account`` has used: now, or as soon as Redis is there again."""
        for charge in charges:
            self._owe(account, charge)
        if not self.is_away:
            await self._pay([_counter(account, charge) for charge in charges])

    def _owe(self, account: str, charge: Charge) -> None:
        seconds = 2 * charge.window.seconds
        amount, until = charge.amount, self._clock() + seconds
        self._owe_counter(_counter(account, charge), Owed(amount, _expiry(charge), until))

    def _owe_counter(self, counter: str, more: Owed) -> None:
        owed = self._owed.get(counter)
        if owed is None:
            while len(self._owed) >= MOST_OWED:
                del self._owed[next(iter(self._owed))]
            self._owed[counter] = more
        else:
            self._owed[counter] = owed._replace(amount=owed.amount + more.amount)

    async def _pay(self, counters: Sequence[str] = ()) -> None:
        """Send what is owed to ``counters``; without, to all, a few at a time."""
        while self._clock() >= self._ask_at:
            chosen = counters or list(islice(self._owed, CONNECTIONS))
            sent = {name: self._owed.pop(name) for name in chosen if name in self._owed}
            now = self._clock()
            due = {name: owed for name, owed in sent.items() if now < owed.until and owed.amount}
            taken: set[str] = set()
            failed = await self._ask([self._send(name, owed, taken) for name, owed in due.items()])
            if isinstance(failed, Exception) and not isinstance(failed, TimeoutError):
                for name in due.keys() - taken:
                    self._owe_counter(name, due[name])
            if counters or not self._owed:
                return

    async def _send(self, counter: str, owed: Owed, taken: set[str]) -> None:
        await self._storage.incr(counter, owed.expiry, owed.amount)
        taken.add(counter)

    async def _ask(self, commands: Sequence[Coroutine[Any, Any, T]]) -> list[T] | Exception:
        """Return what all ``commands`` return, or that Redis is away and why."""
        from limits.errors import StorageError

        try:
            async with asyncio.timeout(self._timeout):
                # All are waited for, so that it is known of each what became of it.
                found = await asyncio.gather(*commands, return_exceptions=True)
                for one in found:
                    if isinstance(one, BaseException):
                        raise one
        except (StorageError, OSError, TimeoutError) as error:
            self._fail(error)
            return error
        return cast("list[T]", found)

    async def _add(self, account: str, charge: Charge, taken: list[Charge]) -> Count:
        rule, window, amount = charge
        current = await self._storage.incr(_counter(account, charge), _expiry(charge), amount)
        taken.append(charge)
        key = f"{account}:{rule.name}"
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


def _counter(account: str, charge: Charge) -> str:
    return f"{account}:{charge.rule.name}:{charge.window.number}"


def _expiry(charge: Charge) -> int:
    """Seconds that a counter is kept: for another window too, in which it is the one before."""
    return int(2 * charge.window.seconds) + 1
