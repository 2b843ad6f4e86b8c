"""Publishes completions to Kafka, outside the hot path.

Completions wait in a queue on the disk (``spool``). A completion is written to the operating system before
its client has the whole answer. After ``kill -9`` the next process publishes it, so nothing is lost. A
completion that was being sent at the kill is published twice, under the same event id.

The queue is limited in bytes. When it is full, or the disk cannot be written to, new completions are dropped
and counted (``log.dropped``): requests are still answered. The oldest completions are kept, because the
monitor's drift windows are made of completions in their order.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

import structlog
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import KafkaRecord
from tunewheel_runtime.deadletter import Warn
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.waiting import end_all

from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.kept import Kept
from tunewheel_serve_gateway.completions.recording import Recorder
from tunewheel_serve_gateway.completions.spool import Head, Spool
from tunewheel_serve_gateway.completions.writing import Writer
from tunewheel_serve_gateway.metrics import Metrics

log = structlog.get_logger(__name__)
Publish = Callable[[Sequence[KafkaRecord]], Awaitable[None]]
IsErased = Callable[[Kept], bool]
ADOPT_SECONDS = 60.0
"""Seconds between two searches for folders of processes that have ended."""
DISK_SECONDS = 1.0
"""Longest wait of a client for the disk. A disk that hangs must not stop answers."""


class CompletionLog:
    """Writes completions to the spool and publishes them from there.

    ``remember`` is called with every recorded completion, before its client has the whole answer.
    ``is_erased`` is called before a completion is remembered or published; an erased one is dropped.
    """

    def __init__(
        self,
        recorder: Recorder,
        publish: Publish,
        metrics: Metrics,
        spool: Spool,
        *,
        remember: Callable[[Kept], None] = lambda _: None,
        is_erased: IsErased = lambda _: False,
        warn: Warn = lambda _, __: None,
        batch: int = 500,
        linger_seconds: float = 0.02,
    ) -> None:
        self._publish_records = publish
        self._metrics = metrics
        self._spool = spool
        self._remember = remember
        self._is_erased = is_erased
        self._warn = warn
        self._batch = batch
        self._linger = linger_seconds
        self._writer = Writer(recorder, spool, self._on_written, self._on_failed)
        self._backoff = Backoff(attempts=1, first=0.1, longest=5.0)
        self._marks = 0
        """Number of marks that were ordered for erasures and were not tried yet; see ``Spool.mark``."""
        self._error: BaseException | None = None
        self._sending = asyncio.Lock()
        """Held while the worker sends a batch."""
        self._arrived = asyncio.Event()
        self._changed = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None
        self._adopter: asyncio.Task[None] | None = None
        metrics.gauge("log.waiting", "Completions waiting for the broker", lambda: spool.count)
        metrics.gauge("log.spool_bytes", "Bytes of completions on disk", lambda: spool.size_bytes)
        metrics.gauge("log.full", "1 while the newest completions are dropped", lambda: int(spool.refuses))

    async def recover(self, projects: Sequence[str] = ()) -> None:
        """Take over the completions that ended processes left on the disk, and begin to accept new ones. The
        output checks of ``projects`` are built in the background. Raises UnusableSpool."""
        left = await asyncio.to_thread(self._spool.take_over)
        self._writer.start(projects)
        self._on_recovered(left)

    def _on_recovered(self, count: int) -> None:
        unread = self._spool.unread
        self._warn("completions_left", f"completions of an ended gateway wait: {unread}" if unread else None)
        self._metrics.add("log.recovered", count)
        if count:
            log.info("completions_recovered", count=count)
            self._arrived.set()

    def offer(self, exchange: Exchange) -> None:
        """Queue ``exchange`` to be written. Never blocks."""
        self._offer(exchange, None)

    async def keep(self, exchange: Exchange) -> None:
        """Return once ``exchange`` was written, was refused, or ``DISK_SECONDS`` have passed."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if not self._offer(exchange, waiter):
            return
        try:
            async with asyncio.timeout(DISK_SECONDS):
                await waiter
        except TimeoutError:
            self._metrics.add("log.unspooled")

    def _offer(self, exchange: Exchange, waiter: asyncio.Future[None] | None) -> bool:
        taken = self._error is None and self._writer.offer(exchange, waiter)
        if not taken:
            self._metrics.add("log.dropped")
        return taken

    def _on_written(self, kept: Sequence[Kept | None], taken: int) -> None:
        for one in kept:
            if one is not None and not self._is_erased(one):  # It may have been erased since ``offer``.
                self._remember(one)
        if lost := len(kept) - taken:
            self._metrics.add("log.dropped", lost)
        self._arrived.set()

    def _on_failed(self, error: BaseException) -> None:
        self._error = error
        self._arrived.set()

    def _on_marked(self, taken_over: int) -> None:
        self._marks -= 1
        self._on_recovered(taken_over)
        self._changed.set()

    def forget(self) -> None:
        """Begin to remove erased completions from the disk, including those that ended processes left behind.
        ``forgotten`` waits until that is done."""
        self._marks += 1
        self._writer.mark(self._on_marked)

    async def forgotten(self, *, timeout_seconds: float) -> None:
        """Return once the disk holds no completion from before the latest ``forget``. The folders of other
        running gateways are not waited for.

        Raises:
            TransientError: the broker did not accept the other completions in time, or the disk cannot be
            read.
        """
        if not self._marks and not self._spool.is_marked:
            self.forget()
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._marks or self._spool.holds_marked():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError as error:
            raise TransientError("completions from before an erasure still wait for the broker") from error

    def start(self) -> asyncio.Task[None]:
        """Begin to publish; the task runs until ``close``."""
        if self._worker is None:
            self._worker = asyncio.create_task(self._run(), name="completion-log")
            self._adopter = asyncio.create_task(self._adopt_regularly(), name="completion-log-adopter")
        return self._worker

    async def close(self, *, timeout_seconds: float) -> None:
        """Publish the waiting completions. Those that the broker does not accept in time stay on the disk."""
        await self._writer.stop()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_seconds):
                async with self._sending:  # What the worker sends would be sent again, were it ended now.
                    await end_all(self._worker)
                while await self._publish_some():
                    pass
        await end_all(self._worker, self._adopter)
        self._worker = self._adopter = None
        if left := self._spool.count:
            log.error("completions_not_published", in_spool=left)
        await asyncio.to_thread(self._spool.close)

    async def _adopt_regularly(self) -> None:
        while True:
            await asyncio.sleep(ADOPT_SECONDS)
            try:
                self._on_recovered(await asyncio.to_thread(self._spool.adopt))
            except Exception as error:
                log.error("completions_not_taken_over", error=str(error))

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if self._error is not None:
                raise self._error
            self._arrived.clear()
            failures = 0
            while waiting := self._spool.count:
                if waiting < self._batch:
                    await asyncio.sleep(self._linger)
                async with self._sending:
                    is_sent = await self._publish_some()
                if is_sent:
                    failures = 0
                else:  # No descriptor was free, for example.
                    await asyncio.sleep(self._backoff.delay(failures))
                    failures += 1

    async def _publish_some(self) -> bool:
        """Publish one batch and retry until the broker has it; return False where nothing can be read. The
        batch is removed from the disk only after the broker acknowledged it."""
        head: Head = await asyncio.to_thread(self._spool.read, self._batch)
        reason = (
            f"completions on the disk cannot be read and are tried again: {head.error}"
            if head.error
            else None
        )
        self._warn("completions_unread", reason)
        if not head.reached:
            return False
        await self._publish_patiently([one.record for one in head.kept if not self._is_erased(one)])
        await asyncio.to_thread(self._spool.acknowledge, head)
        self._metrics.add("log.dropped", head.lost)
        self._changed.set()
        return True

    async def _publish_patiently(self, records: list[KafkaRecord]) -> None:
        attempt = 0
        while True:
            try:
                return await self._publish(records)
            except TransientError as error:
                delay = self._backoff.delay(attempt)
                log.warning("completions_wait_for_broker", waiting=self._spool.count, error=str(error))
                attempt += 1
                await asyncio.sleep(delay)

    async def _publish(self, records: list[KafkaRecord]) -> None:
        if not records:
            return
        try:
            await self._publish_records(records)
            self._metrics.add("log.published", len(records))
        except InvalidEvent as error:
            if len(records) == 1:
                log.error("completion_refused", completion_id=records[0].key.decode(), error=str(error))
                self._metrics.add("log.dropped")
                return
            for record in records:
                await self._publish([record])
