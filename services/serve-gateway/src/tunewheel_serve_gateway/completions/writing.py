"""Two threads that turn exchanges into records and write them to the spool in batches.

One thread handles the exchanges that are redacted, which takes milliseconds each. The other handles the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import queue
import threading
from collections.abc import Callable, Sequence

from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.kept import Kept
from tunewheel_serve_gateway.completions.recording import Recorder
from tunewheel_serve_gateway.completions.spool import Spool

BATCH = 500
"""Most exchanges in one write."""
PENDING_BYTES = 64 << 20
"""Most bytes of exchanges that wait in memory for one of the threads. The limit is reached only where the
disk hangs, or where redaction is slower than the traffic."""
Waiter = asyncio.Future[None]
Offered = tuple[Exchange, Waiter | None]
Order = Callable[[], object]
OnWritten = Callable[[Sequence[Kept | None], int], None]
"""Takes the records of a batch, None for an exchange that is no valid event, and how many of the others,
counted from the first, are on the disk."""
OnFailed = Callable[[BaseException], None]
"""Takes the error that ended a thread."""


class Lane:
    """A queue of exchanges and the thread that writes them. ``on_written`` and ``on_failed`` are called on
    the event loop."""

    def __init__(
        self, name: str, recorder: Recorder, spool: Spool, on_written: OnWritten, on_failed: OnFailed
    ) -> None:
        self._name = name
        self._recorder = recorder
        self._spool = spool
        self._on_written = on_written
        self._on_failed = on_failed
        self._queue: queue.SimpleQueue[Offered | Order] = queue.SimpleQueue()
        self._pending = 0
        self._thread: threading.Thread | None = None
        self._is_over = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def start(self, prepare: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._run, prepare), name=self._name, daemon=True
        )
        self._thread.start()

    async def stop(self) -> None:
        """Write the waiting exchanges, then end the thread."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self.order(self._end)
            await asyncio.to_thread(thread.join)
            await asyncio.sleep(0)  # lets the event loop deliver the thread's last reports

    def offer(self, exchange: Exchange, waiter: Waiter | None) -> bool:
        size = exchange.size_bytes
        if self._thread is None or self._pending + size > PENDING_BYTES:
            return False
        self._pending += size
        self._queue.put((exchange, waiter))
        return True

    def order(self, order: Order) -> None:
        """Have ``order`` called on the thread, after everything that was offered before it."""
        self._queue.put(order)

    def report(self, function: Callable[..., object], *arguments: object) -> None:
        """Call ``function`` on the event loop."""
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # The event loop may be closed already.
            self._loop.call_soon_threadsafe(function, *arguments)

    def _end(self) -> None:
        self._is_over = True

    def _run(self, prepare: Callable[[], None]) -> None:
        try:
            prepare()
            while not self._is_over:
                self._write_some()
        except BaseException as error:
            self.report(self._on_failed, error)

    def _write_some(self) -> None:
        """Write one batch, then follow the order behind it, if any."""
        batch, order = self._take()
        if batch:
            kept = self._recorder.record([exchange for exchange, _ in batch])
            taken = self._spool.append([one.frame() for one in kept if one is not None])
            self.report(self._end_batch, batch, kept, taken)
        if order is not None:
            order()

    def _take(self) -> tuple[list[Offered], Order | None]:
        """Wait for the next item; return a batch of exchanges and the order that follows them, if any."""
        batch: list[Offered] = []
        item: Offered | Order | None = self._queue.get()
        while isinstance(item, tuple):
            batch.append(item)
            try:
                item = self._queue.get_nowait() if len(batch) < BATCH else None
            except queue.Empty:
                item = None
        return batch, item

    def _end_batch(self, batch: Sequence[Offered], kept: Sequence[Kept | None], taken: int) -> None:
        self._pending -= sum(exchange.size_bytes for exchange, _ in batch)
        self._on_written(kept, taken)
        for _, waiter in batch:
            if waiter is not None and not waiter.done():
                waiter.set_result(None)


class Writer:
    """Accepts exchanges on the event loop and reports there. Exchanges without redaction never wait for
    redaction; all redacted ones share one thread."""

    def __init__(self, recorder: Recorder, spool: Spool, on_written: OnWritten, on_failed: OnFailed) -> None:
        self._recorder = recorder
        self._spool = spool
        self._slow = Lane("completion-redactor", recorder, spool, on_written, on_failed)
        self._quick = Lane("completion-writer", recorder, spool, on_written, on_failed)

    def start(self, projects: Sequence[str] = ()) -> None:
        """Start the threads. Redaction and output checks of ``projects`` are built before the first write."""
        self._slow.start(lambda: self._recorder.prepare_redaction(projects))
        self._quick.start(lambda: self._recorder.prepare(projects))

    async def stop(self) -> None:
        """Write the waiting exchanges, then end both threads."""
        await self._quick.stop()
        await self._slow.stop()

    def offer(self, exchange: Exchange, waiter: Waiter | None = None) -> bool:
        """Queue ``exchange``; return False where it is refused. ``waiter`` is set once the exchange was
        written or dropped."""
        lane = self._slow if self._recorder.is_slow(exchange) else self._quick
        return lane.offer(exchange, waiter)

    def mark(self, on_marked: Callable[[int], None]) -> None:
        """Set a mark behind everything that was offered before; ``on_marked`` gets what ``Spool.mark``
        returns."""
        slow = self._slow
        # The mark passes through both threads, to come after what either of them still has to write.
        self._quick.order(lambda: slow.order(lambda: slow.report(on_marked, self._spool.mark())))
