"""Completions onto the log, off the hot path.

Overflow policy: the queue is bounded in number and in bytes; when it is full, the newest completion is
dropped and counted (``log.dropped``). Answering users goes before observing them, and the oldest are kept
because their order is what drift windows are made of.

What a ``kill -9`` costs: completions that were answered but not yet acknowledged by the broker — those of the
last ``linger_seconds`` while the broker is well, at most the queue while it is away. A clean stop flushes.
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

log = structlog.get_logger(__name__)

Wrap = Callable[[InferenceCompleted], Envelope[InferenceCompleted]]
PublishMany = Callable[[Sequence[Envelope[Any]]], Awaitable[None]]


class CompletionLog:
    def __init__(
        self,
        wrap: Wrap,
        publish_many: PublishMany,
        metrics: Metrics,
        *,
        limit: int = 10_000,
        limit_bytes: int = 64 << 20,
        batch: int = 500,
        linger_seconds: float = 0.02,
    ) -> None:
        self._wrap = wrap
        self._publish_many = publish_many
        self._metrics = metrics
        self._limit = limit
        self._limit_bytes = limit_bytes
        self._batch = batch
        self._linger = linger_seconds
        self._backoff = Backoff(attempts=1, first=0.1, longest=5.0)
        self._waiting: deque[Exchange] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        metrics.gauge("log.waiting", "Completions waiting for the broker", lambda: len(self._waiting))

    def offer(self, exchange: Exchange) -> bool:
        """Queue ``exchange``; False where it was dropped. Never blocks."""
        size = exchange.size_bytes
        if len(self._waiting) >= self._limit or self._bytes + size > self._limit_bytes:
            self._metrics.add("log.dropped")
            return False
        self._waiting.append(exchange)
        self._bytes += size
        self._arrived.set()
        return True

    def start(self) -> asyncio.Task[None]:
        """Begin to publish; the task runs until ``close``."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._run(), name="completion-log")
        return self._worker

    async def close(self, *, timeout_seconds: float) -> None:
        """Flush what is waiting; what the broker does not take in time is dropped, and counted."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)
            self._worker = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                while self._waiting:
                    await self._publish_some()
        if self._waiting:
            log.error("completions_lost_at_shutdown", count=len(self._waiting))
            self._metrics.add("log.dropped", len(self._waiting))
            self._waiting.clear()

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
        batch = [self._waiting[n] for n in range(min(self._batch, len(self._waiting)))]
        envelopes = [envelope for exchange in batch if (envelope := self._envelope(exchange)) is not None]
        attempt = 0
        while True:
            try:
                await self._publish(envelopes)
                break
            except TransientError as error:
                delay = self._backoff.delay(attempt)
                log.warning("completions_wait_for_broker", waiting=len(self._waiting), error=str(error))
                attempt += 1
                await asyncio.sleep(delay)
        for _ in batch:
            self._bytes -= self._waiting.popleft().size_bytes

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
