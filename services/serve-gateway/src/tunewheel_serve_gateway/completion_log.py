"""Completions onto the log, off the hot path.

Overflow policy: the queue is bounded in number and in bytes; when it is full, the newest completion is
dropped and counted (``log.dropped``). Answering users goes before observing them, and the oldest are kept
because their order is what drift windows are made of.

What waits lies in the spool too, from before its client has the whole answer: ``kill -9`` loses nothing, the
next process publishes it. What was on its way to the broker just then comes twice, under the same event id.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog
from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_runtime.retry import Backoff

from tunewheel_serve_gateway.exchange import Exchange
from tunewheel_serve_gateway.metrics import Metrics
from tunewheel_serve_gateway.spool import Segment, Spool

log = structlog.get_logger(__name__)

Wrap = Callable[[InferenceCompleted], Envelope[InferenceCompleted]]
PublishMany = Callable[[Sequence[Envelope[Any]]], Awaitable[None]]


class CompletionLog:
    def __init__(
        self,
        wrap: Wrap,
        publish_many: PublishMany,
        metrics: Metrics,
        spool: Spool,
        *,
        limit: int = 10_000,
        limit_bytes: int = 64 << 20,
        batch: int = 500,
        linger_seconds: float = 0.02,
    ) -> None:
        self._wrap = wrap
        self._publish_many = publish_many
        self._metrics = metrics
        self._spool = spool
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._batch = batch
        self._linger = linger_seconds
        self._backoff = Backoff(attempts=1, first=0.1, longest=5.0)
        self._waiting: deque[tuple[Exchange, Segment | None]] = deque()
        self._flying = 0
        """Of those that wait, the first so many are on their way."""
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._acknowledged = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        metrics.gauge("log.waiting", "Completions waiting for the broker", lambda: len(self._waiting))
        metrics.gauge("log.spool_bytes", "Bytes of completions on disk", lambda: spool.size_bytes)

    async def recover(self, is_erased: Callable[[Exchange], bool] = lambda _: False) -> None:
        """Queue what processes that were killed, or had no broker at their end, left in the spool, without
        what was erased since.

        Raises:
            UnusableSpool
        """
        left = await asyncio.to_thread(self._spool.take_over)
        for exchange, segment in left:
            if is_erased(exchange):
                self._spool.acknowledge(segment)
            else:
                self._queue(exchange, segment)
        self._metrics.add("log.recovered", len(left))
        if left:
            log.info("completions_recovered", count=len(left))

    def offer(self, exchange: Exchange) -> bool:
        """Queue ``exchange``; False where it was dropped. Never blocks."""
        size = exchange.size_bytes
        if len(self._waiting) >= self._limit or self._bytes + size > self._limit_bytes:
            self._metrics.add("log.dropped")
            return False
        segment = self._spool.append(exchange)
        if segment is None:
            self._metrics.add("log.unspooled")
        self._queue(exchange, segment)
        return True

    def _queue(self, exchange: Exchange, segment: Segment | None) -> None:
        self._waiting.append((exchange, segment))
        self._bytes += exchange.size_bytes
        self._arrived.set()

    def forget(self, is_erased: Callable[[Exchange], bool]) -> None:
        """Drop what an erasure takes and is not on its way to the broker; its file goes once the broker has
        the rest of it (``forgotten``)."""
        kept: deque[tuple[Exchange, Segment | None]] = deque()
        for n, (exchange, segment) in enumerate(self._waiting):
            if n >= self._flying and is_erased(exchange):
                self._bytes -= exchange.size_bytes
                self._spool.acknowledge(segment)
            else:
                kept.append((exchange, segment))
        self._waiting = kept
        self._spool.begin_anew()

    async def forgotten(self, *, timeout_seconds: float) -> None:
        """Return once nothing from before the latest ``forget`` is on this disk.

        Raises:
            TransientError: the broker does not take what was there beside.
        """
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._spool.holds_earlier():
                    self._acknowledged.clear()
                    await self._acknowledged.wait()
        except TimeoutError as error:
            raise TransientError("completions from before an erasure still wait for the broker") from error

    def start(self) -> asyncio.Task[None]:
        """Begin to publish; the task runs until ``close``."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._run(), name="completion-log")
        return self._worker

    async def close(self, *, timeout_seconds: float) -> None:
        """Flush what is waiting; what the broker does not take in time stays in the spool."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self._waiting:
                    await self._publish_some()
        if self._waiting:
            lost = sum(segment is None for _, segment in self._waiting)
            log.error("completions_not_published", in_spool=len(self._waiting) - lost, lost=lost)
            self._metrics.add("log.dropped", lost)
            self._waiting.clear()
            self._bytes = 0
        self._spool.close()

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if len(self._waiting) < self._batch:
                await asyncio.sleep(self._linger)
            self._arrived.clear()
            while self._waiting:
                await self._publish_some()

    async def _publish_some(self) -> None:
        """Publish one batch, for as long as it takes. It leaves the queue only when acknowledged."""
        batch = [self._waiting[n][0] for n in range(min(self._batch, len(self._waiting)))]
        envelopes = [envelope for exchange in batch if (envelope := self._envelope(exchange)) is not None]
        self._flying = len(batch)
        try:
            await self._publish_patiently(envelopes)
        finally:
            self._flying = 0
        for _ in batch:
            exchange, segment = self._waiting.popleft()
            self._bytes -= exchange.size_bytes
            self._spool.acknowledge(segment)
        self._acknowledged.set()

    async def _publish_patiently(self, envelopes: list[Envelope[InferenceCompleted]]) -> None:
        attempt = 0
        while True:
            try:
                return await self._publish(envelopes)
            except TransientError as error:
                delay = self._backoff.delay(attempt)
                log.warning("completions_wait_for_broker", waiting=len(self._waiting), error=str(error))
                attempt += 1
                await asyncio.sleep(delay)

    async def _publish(self, envelopes: list[Envelope[InferenceCompleted]]) -> None:
        try:
            await self._publish_many(envelopes)
            self._metrics.add("log.published", len(envelopes))
        except InvalidEvent as error:
            if len(envelopes) == 1:
                log.error(
                    "completion_refused", completion_id=envelopes[0].data.completion_id, error=str(error)
                )
                self._metrics.add("log.dropped")
                return
            for envelope in envelopes:
                await self._publish([envelope])

    def _envelope(self, exchange: Exchange) -> Envelope[InferenceCompleted] | None:
        try:
            return self._wrap(exchange.event_data())
        except ValidationError as error:
            log.error("completion_refused", completion_id=exchange.completion_id, error=str(error))
            self._metrics.add("log.dropped")
            return None
