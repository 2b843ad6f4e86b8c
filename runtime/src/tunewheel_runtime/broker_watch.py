"""Watches whether the broker answers this process, and measures the lag of its consumer groups.

The broker is asked every few seconds on the producer's connection, which every process has. So an idle
process notices an outage too. An outage does not restart the process; it only shows in readiness.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

import structlog
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import TransientError

from tunewheel_runtime.waiting import end_all

log = structlog.get_logger(__name__)

ASK_SECONDS = 5.0
LAG_SECONDS = 15.0
"""Seconds between two measurements; Prometheus usually scrapes as often."""

Lag = Mapping[tuple[str, str, str], float]
"""Number of unprocessed records, by group, topic and partition."""


class BrokerWatch:
    """Watches the broker.

    ``ask`` raises if the broker does not answer. ``measure`` returns the lag of this process's partitions,
    and may raise too. ``patience_seconds``: a broker that is silent for longer counts as lost.
    """

    def __init__(
        self,
        ask: Callable[[], Awaitable[None]],
        measure: Callable[[], Awaitable[Lag]],
        *,
        patience_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask = ask
        self._measure = measure
        self._patience = patience_seconds
        self._every = min(ASK_SECONDS, patience_seconds / 3)
        self._clock = clock
        self._heard = clock()
        self._measured = clock() - LAG_SECONDS
        self._silent = True  # Until the first answer, so that a process which starts in an outage reports it.
        self._watching: asyncio.Task[None] | None = None
        self.lag: Lag = {}

    def start(self) -> None:
        """Begin to watch. Call it once the broker has been reached; repeated calls are harmless."""
        if self._watching is None:
            self._silent, self._heard = False, self._clock()
            self._watching = asyncio.create_task(self._watch(), name="broker-watch")

    async def stop(self) -> None:
        await end_all(self._watching)
        self._watching = None
        self._silent = True
        self.lag = {}

    @property
    def silent_seconds(self) -> float:
        """Seconds since the broker's last answer, or since the start of this process if it never answered; 0
        while it answers."""
        return self._clock() - self._heard if self._silent else 0.0

    @property
    def lost(self) -> bool:
        """Whether the broker has been silent for longer than ``patience_seconds``."""
        return self.silent_seconds > self._patience

    async def look(self) -> None:
        """Ask once."""
        try:
            async with asyncio.timeout(self._every):
                await self._ask()
        except (KafkaError, OSError, TransientError) as error:
            if not self._silent:
                self._silent = True
                log.warning("broker_silent", error=repr(error))
            return
        if self._silent:
            log.info("broker_answers", silent_seconds=round(self.silent_seconds, 1))
        self._silent, self._heard = False, self._clock()
        if self._heard - self._measured >= LAG_SECONDS:
            await self._look_at_lag()

    async def _look_at_lag(self) -> None:
        self._measured = self._heard
        try:
            async with asyncio.timeout(LAG_SECONDS):
                self.lag = await self._measure()
        except (KafkaError, OSError, TransientError) as error:
            log.info("lag_not_measured", error=repr(error))

    async def _watch(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(self._every)
