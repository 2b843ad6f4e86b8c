"""Counts the usage of callers: in this process, and in Redis for all gateways together."""

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
"""After a failure Redis is not called for this long. During an outage only one request per second then waits
for the time-out."""
PREVIOUS_SECONDS = 1.0
"""How long a read of the previous minute's usage is cached. That usage changes only by answers that end
late."""
MOST_KNOWN = 10_000
MOST_OWED = 10_000
"""Most counters whose corrections wait for Redis. When there are more, the oldest correction is dropped."""


class Tally:
    """A caller's usage of one limit, as counted by this process."""

    __slots__ = ("_current", "_number", "_previous")

    def __init__(self) -> None:
        self._number, self._current, self._previous = -1, 0, 0

    def add(self, number: int, amount: int) -> Count:
        """Add ``amount`` to the window ``number``, the present one; return the usage after it. A clock that
        was set back by more than a window starts anew."""
        if number != self._number:
            self._previous = self._current if number == self._number + 1 else 0
            self._number, self._current = number, 0
        self._current += amount
        return Count(self._current, self._previous)

    def correct(self, number: int, amount: int) -> None:
        """Add ``amount``, which may be negative, to the present window or the one before. Others are
        ignored."""
        if number == self._number:
            self._current = max(0, self._current + amount)
        elif number == self._number - 1:
            self._previous = max(0, self._previous + amount)


class Owed(NamedTuple):
    """A correction that waits for Redis. ``until``: the time from which on the counter no longer matters."""

    amount: int
    expiry: int
    until: float


class SharedCounts:
    """The usage at all gateways, in Redis. Each limit of a caller costs one command (of ``limits``' storage).

    No call takes longer than ``timeout_seconds``, and none raises. ``add`` returns None while Redis is
    unavailable; corrections wait until Redis is back. A command without an answer in time may have been
    executed, so it is neither repeated nor reversed.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float,
        installation: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``url``: ``redis://…`` or ``rediss://…``, in redis-py's format. ``installation``: its prefix on
        Kafka; those that share a Redis count apart."""
        from limits.aio.storage import RedisStorage
        from redis.asyncio import BlockingConnectionPool
        from redis.asyncio.retry import Retry
        from redis.backoff import NoBackoff

        # Retry once, because the server may have closed an idle connection.
        options: dict[str, Any] = {"retry": Retry(NoBackoff(), 1), "socket_connect_timeout": timeout_seconds}
        self._pool = BlockingConnectionPool.from_url(url, max_connections=CONNECTIONS, **options)
        self._storage: RedisStorage = RedisStorage(
            f"async+{url}",
            wrap_exceptions=True,
            implementation="redispy",
            key_prefix=f"{installation}{PREFIX}",
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
        """Add the charges to the usage of ``account``; return the usage after them. None: Redis is
        unavailable; charges that Redis accepted before it failed are reversed later."""
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
        """Add the charges to the usage of ``account``, now or as soon as Redis is available again."""
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
        """Send the waiting corrections of ``counters``. Without ``counters``, send all, in batches."""
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
        """Return the results of all ``commands``, or the error where Redis is unavailable."""
        from limits.errors import StorageError

        try:
            async with asyncio.timeout(self._timeout):
                # Wait for all, so that the outcome of each command is known.
                found = await asyncio.gather(*commands, return_exceptions=True)
                for one in found:
                    if isinstance(one, BaseException):
                        raise one
        except (StorageError, OSError) as error:
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
    """Return the seconds that a counter is kept: two windows, because it is read as the previous one too."""
    return int(2 * charge.window.seconds) + 1
