"""The threads that make records of exchanges and hand them to the disk, a batch by one write: one of those
that are redacted, which takes milliseconds each, and one of all others."""

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
"""Exchanges that one write holds at most."""
PENDING_BYTES = 64 << 20
"""Of exchanges that wait for one of the threads, in memory: more wait only where the disk hangs, or where
redaction is slower than traffic."""
Waiter = asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Offered:
    exchange: Exchange
    waiter: Waiter | None
    size: int


@dataclass(frozen=True, slots=True)
class Written:
    """What became of some exchanges, in their order: the first ``taken`` of ``kept`` are on the disk. None of
    one that no event can hold."""

    offered: Sequence[Offered]
    kept: Sequence[Kept | None]
    taken: int


class Order(Enum):
    """What a thread is asked for beside writing."""

    MARK = "see Spool.mark"
    END = "write what waits, and end"


Told = Written | BaseException | int | None
"""What was written; the error that ended a thread; how much was taken over with a mark; None where
no mark could be set."""


class Lane:
    """A queue of exchanges and the thread that writes them. ``mark`` is called there where a mark was put in;
    ``told`` on the event loop."""

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
        """Write what waits, and end."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self.order(Order.END)
            await asyncio.to_thread(thread.join)
            await asyncio.sleep(0)  # what the thread told last is told now

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
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell_on_loop, what)

    def _run(self, prepare: Callable[[], None]) -> None:
        try:
            prepare()
            while self._write_some():
                pass
        except BaseException as error:
            self.tell(error)

    def _write_some(self) -> bool:
        """Write what waits; False at the end."""
        batch, order = self._take()
        if batch:
            kept = self._recorder.record([one.exchange for one in batch])
            taken = self._spool.append([one.frame() for one in kept if one is not None])
            self.tell(Written(batch, kept, taken))
        if order is Order.MARK:
            self._mark()
        return order is not Order.END

    def _take(self) -> tuple[list[Offered], Order | None]:
        """Return a batch of what waits, at least one, and the order that came after it, if one did."""
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
    """Takes exchanges on the event loop, where ``told`` is called too. No project waits for the redaction of
    another, but for that of others that are redacted."""

    def __init__(self, recorder: Recorder, spool: Spool, told: Callable[[Told], None]) -> None:
        self._recorder = recorder
        self._spool = spool
        self._slow = Lane("completion-redactor", recorder, spool, told, self._set_mark)
        # a mark is set once all that was offered before it is on the disk: it goes through both
        self._quick = Lane("completion-writer", recorder, spool, told, lambda: self._slow.order(Order.MARK))

    def start(self, projects: Sequence[str] = ()) -> None:
        """Begin to write; the verdicts of ``projects`` are prepared first."""
        self._slow.start(lambda: None)
        self._quick.start(lambda: self._recorder.prepare(projects))

    async def stop(self) -> None:
        """Write what waits, and end."""
        await self._quick.stop()
        await self._slow.stop()

    def offer(self, exchange: Exchange, waiter: Waiter | None = None) -> bool:
        """Have ``exchange`` written; False where it is refused. ``waiter`` is set once it is written, or is
        not going to be."""
        lane = self._slow if self._recorder.is_slow(exchange) else self._quick
        return lane.offer(exchange, waiter)

    def mark(self) -> None:
        self._quick.order(Order.MARK)

    def _set_mark(self) -> None:
        try:
            self._slow.tell(self._spool.mark())
        except OSError as error:
            log.error("completions_not_taken_over", error=str(error))
            self._slow.tell(None)
