"""Retry with exponential backoff and equal jitter (Brooker, 2015, AWS Architecture Blog)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import structlog
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import TransientError

if TYPE_CHECKING:
    from tunewheel_runtime.settings import ServiceSettings

T = TypeVar("T")
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Backoff:
    """``attempts``: number of calls in all. The n-th wait (from 0) is drawn between half of and the whole of
    min(longest, first · 2ⁿ) seconds."""

    attempts: int
    first: float
    longest: float

    @classmethod
    def of(cls, settings: ServiceSettings, *, attempts: int | None = None) -> Backoff:
        """Return the backoff of ``settings``; ``attempts`` replaces theirs."""
        tries = settings.retry_attempts if attempts is None else attempts
        return cls(tries, settings.retry_first_delay_seconds, settings.retry_max_delay_seconds)

    def delay(self, attempt: int) -> float:
        ceiling = min(self.longest, self.first * 2.0 ** min(attempt, 30))
        return random.uniform(ceiling / 2, ceiling)


async def retry(
    call: Callable[[], Awaitable[T]],
    backoff: Backoff,
    *,
    what: str,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> T:
    """Await ``call()`` again, with waits, as long as it raises a transient error. ``sleep`` does the waiting.
    Raises TransientError: the last attempt failed."""
    for attempt in range(backoff.attempts):
        try:
            return await call()
        except (TransientError, ConnectionError, TimeoutError, KafkaError) as error:
            if attempt + 1 == backoff.attempts:
                raise TransientError(f"{what}: gave up after {backoff.attempts} attempts: {error}") from error
            delay = backoff.delay(attempt)
            log.warning(
                "retrying", what=what, attempt=attempt + 1, delay_seconds=round(delay, 3), error=str(error)
            )
            await sleep(delay)
    raise AssertionError("unreachable: attempts is at least one")
