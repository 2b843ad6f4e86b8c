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
from dataclasses import dataclass
from enum import Enum

import structlog

from tunewheel_serve_gateway.completions.exchange import Exchange
from tunewheel_serve_gateway.completions.kept import Kept
from tunewheel_serve_gateway.completions.recording import Recorder
from tunewheel_serve_gateway.completions.spool import Spool

log = structlog.get_logger(__name__)
BATCH = 500
"""Most exchanges in one write."""
PENDING_BYTES = 64 << 20
"""Most bytes of exchanges that wait in memory for one of the threads. The limit is reached only where the
disk hangs, or where redaction is slower than the traffic."""
Waiter = asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Offered:
    exchange: Exchange
    waiter: Waiter | None
    size: int


@dataclass(frozen=True, slots=True)
class Written:
    """Result of one batch, in the order of ``offered``. ``kept`` holds None for an exchange that is no valid
    event. The first ``taken`` of the other records are on the disk."""

    offered: Sequence[Offered]
    kept: Sequence[Kept | None]
    taken: int


class Order(Enum):
    """An order to a thread, other than to write an exchange."""

    MARK = "see Spool.mark"
    END = "write the waiting exchanges, then end"


Told = Written | BaseException | int
"""A thread's report: a written batch; the error that ended the thread; the number of completions taken over
when a mark was ordered."""


class Lane:
    """A queue of exchanges and the thread that writes them. ``mark`` is called on the thread for each
    ``Order.MARK``. ``told`` is called on the event loop with each report."""

    def __init__(
        self,
        name: str,
        recorder: Recorder,
        spool: Spool,
        told: Callable[[Told], None],
        mark: Callable[[], None],
    ) -> None:
        self._name = name
        self._recorder = recorder
        self._spool = spool
        self._told = told
        self._mark = mark
        self._queue: queue.SimpleQueue[Offered | Order] = queue.SimpleQueue()
        self._pending = 0
        self._thread: threading.Thread | None = None
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
            self.order(Order.END)
            await asyncio.to_thread(thread.join)
            await asyncio.sleep(0)  # lets the event loop deliver the thread's last reports

    def offer(self, exchange: Exchange, waiter: Waiter | None) -> bool:
        size = exchange.size_bytes
        if self._thread is None or self._pending + size > PENDING_BYTES:
            return False
        self._pending += size
        self._queue.put(Offered(exchange, waiter, size))
        return True

    def order(self, order: Order) -> None:
        self._queue.put(order)

    def tell(self, what: Told) -> None:
        assert self._loop is not None
        with contextlib.suppress(RuntimeError):  # The event loop may be closed already.
            self._loop.call_soon_threadsafe(self._tell_on_loop, what)

    def _run(self, prepare: Callable[[], None]) -> None:
        try:
            prepare()
            while self._write_some():
                pass
        except BaseException as error:
            self.tell(error)

    def _write_some(self) -> bool:
        """Write one batch; return False once ``Order.END`` was read."""
        batch, order = self._take()
        if batch:
            kept = self._recorder.record([one.exchange for one in batch])
            taken = self._spool.append([one.frame() for one in kept if one is not None])
            self.tell(Written(batch, kept, taken))
        if order is Order.MARK:
            self._mark()
        return order is not Order.END

    def _take(self) -> tuple[list[Offered], Order | None]:
        """Wait for the next item; return a batch of exchanges and the order that follows them, if any."""
        batch: list[Offered] = []
        item: Offered | Order | None = self._queue.get()
        while isinstance(item, Offered):
            batch.append(item)
            try:
                item = self._queue.get_nowait() if len(batch) < BATCH else None
            except queue.Empty:
                item = None
        return batch, item

    def _tell_on_loop(self, what: Told) -> None:
        if isinstance(what, Written):
            self._pending -= sum(one.size for one in what.offered)
        self._told(what)
        if isinstance(what, Written):
            for one in what.offered:
                if one.waiter is not None and not one.waiter.done():
                    one.waiter.set_result(None)


class Writer:
    """Accepts exchanges on the event loop and calls ``told`` there. Exchanges without redaction never wait
    for redaction; all redacted ones share one thread."""

    def __init__(self, recorder: Recorder, spool: Spool, told: Callable[[Told], None]) -> None:
        self._recorder = recorder
        self._spool = spool
        self._slow = Lane("completion-redactor", recorder, spool, told, lambda: self._slow.tell(spool.mark()))
        # A mark must come after everything that was offered before it, so it passes through both threads.
        self._quick = Lane("completion-writer", recorder, spool, told, lambda: self._slow.order(Order.MARK))

    def start(self, projects: Sequence[str] = ()) -> None:
        """Start the threads. The output checks of ``projects`` are built before the first write."""
        self._slow.start(lambda: None)
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

    def mark(self) -> None:
        self._quick.order(Order.MARK)
