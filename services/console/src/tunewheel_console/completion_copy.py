"""Fills the completions that are searched from the log, and erases what is to be erased.

1. What is in the file is erased by all requests for erasure so far; until then nothing is shown.
2. The log is read on from where the file ends, or from the oldest completion that is to be kept.
3. Each batch is decoded and written by one thread beside the event loop, together with how far the log was
   read. Thus a process that is killed reads the rest again.
4. From time to time what is too old, or too much, is deleted.

No partition waits for this: the topic is read without a consumer group.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import ParamSpec, TypeVar

import structlog
from tunewheel_contracts.erasures import Erasures
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.production import InferenceCompleted
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_contracts.topics import INFERENCE_COMPLETED
from tunewheel_runtime.deadletter import Undecoded, Warn
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.log import Cursor, Place, at, decode
from tunewheel_runtime.waiting import end_all, reporting

from tunewheel_console.completions import Completions, Kept
from tunewheel_console.settings import Settings

log = structlog.get_logger(__name__)
P = ParamSpec("P")
T = TypeVar("T")
BATCH = 500
"""The most completions that are written at once."""
AGAIN_SECONDS = 3.0
SWEEP_SECONDS = 600.0
"""How often completions are deleted that are too old, or too many."""


class CompletionCopy:
    """Keeps ``completions`` a copy of the latest part of the log. Nothing is kept if the settings say so."""

    def __init__(
        self,
        settings: Settings,
        completions: Completions,
        *,
        warn: Warn = lambda _name, _text: None,
        failed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._options = client_options(settings)
        self._most, self._age = settings.completions_kept, timedelta(days=settings.completions_days)
        self._completions = completions
        self._warn, self._failed = warn, failed
        self._erasures = Erasures()
        """Only the writer thread uses them, once it runs."""
        self._writer: ThreadPoolExecutor | None = None
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if not self._most:
            self._completions.discard()  # no erasure would reach what an earlier start left there
        else:
            self._writer = ThreadPoolExecutor(1, thread_name_prefix="completions")
            self._task = asyncio.create_task(self._run(), name="completions")
            self._task.add_done_callback(reporting(self._failed))

    async def stop(self) -> None:
        await end_all(self._task)
        if self._writer is not None:
            await asyncio.to_thread(self._writer.shutdown)
            self._task = self._writer = None
        self._completions.close()

    async def on_erasure(self, event: Envelope[ErasureRequested]) -> None:
        """Erase what ``event`` covers, now and of what comes later. It is done on return."""
        await self._in_writer(self._erase, event)

    def _erase(self, event: Envelope[ErasureRequested]) -> None:
        asked = self._erasures.asked_by(event)
        if not self._completions.is_open:
            return
        try:
            taken = self._completions.erase([asked])
            log.info("completions_erased", erasure_id=event.data.erasure_id, completions=taken)
        except sqlite3.Error as error:  # it is erased before the file is opened again
            log.warning("completions_not_erased", error=str(error))
            self._completions.close()

    async def _in_writer(self, work: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        if self._writer is None:
            return work(*args, **options)
        return await asyncio.wrap_future(self._writer.submit(work, *args, **options))

    async def _run(self) -> None:
        while True:
            try:
                await self._in_writer(self._open)
                self._warn("completions", None)
                await self._follow()
            except BlockingIOError:
                reason = "another console has the file; give each its own TUNEWHEEL_WORK_DIR"
                self._warn("completions", f"the latest completions cannot be searched: {reason}")
            except (OSError, sqlite3.Error) as error:
                log.warning("completions_not_written", error=str(error))
                self._warn("completions", f"the latest completions cannot be searched: {error}")
                await self._in_writer(self._completions.close)
            except TransientError as error:
                log.warning("completions_unreadable", error=str(error))
            await asyncio.sleep(AGAIN_SECONDS)

    def _open(self) -> None:
        if self._completions.is_open:
            return
        try:
            self._completions.open()
            self._completions.erase(self._erasures.all())
        except sqlite3.Error as error:
            if not self._completions.is_damaged:
                raise
            log.error("completions_damaged", error=str(error), consequence="they are read from the log anew")
            self._completions.remove()

    async def _follow(self) -> None:
        async with Cursor(self._options, [INFERENCE_COMPLETED.name], follows=True) as cursor:
            cursor.start_from(await self._begins(cursor))
            added, swept = 0, -SWEEP_SECONDS
            while True:
                await cursor.take_up_added()
                records = await cursor.fetch(most=BATCH)
                await self._in_writer(self._add, records)
                added += len(records)
                is_late = time.monotonic() - swept >= SWEEP_SECONDS and len(records) < BATCH
                if is_late or added >= self._most:
                    before = datetime.now(UTC) - self._age
                    await self._in_writer(self._completions.trim, most=self._most, before=before)
                    added, swept = 0, time.monotonic()

    async def _begins(self, cursor: Cursor) -> Mapping[Place, int]:
        """Return by partition the first offset to read: where the file ends, but not what would be deleted at
        once."""
        reached = await self._in_writer(self._completions.reached)
        if not await self._is_same_log(cursor, reached):
            log.warning("completions_of_another_log", consequence="they are read from the log anew")
            await self._in_writer(self._completions.remove)
            reached = {}
        old = await cursor.offsets_at(datetime.now(UTC) - self._age)
        return {
            place: max(old[place], span.end - self._most, reached.get(place[1], (0, ""))[0])
            for place, span in cursor.spans.items()
        }

    async def _is_same_log(self, cursor: Cursor, reached: Mapping[int, tuple[int, str]]) -> bool:
        ends = {number: span.end for (_, number), span in cursor.spans.items()}
        if any(offset > ends.get(number, 0) for number, (offset, _) in reached.items()):
            return False
        last = [(number, offset - 1) for number, (offset, _) in reached.items()]
        found = await at(self._options, INFERENCE_COMPLETED, last)
        return all(event.id == reached[number][1] for (number, _), event in found.items())

    def _add(self, records: Sequence[Undecoded]) -> None:
        found, reached, oldest = list[Kept](), dict[int, tuple[int, str]](), datetime.now(UTC) - self._age
        for record in records:
            event_id = record.headers.get("ce_id", b"").decode("utf-8", "replace")
            reached[record.position.partition] = record.position.offset + 1, event_id
            try:
                event: Envelope[InferenceCompleted] = decode(record)
            except InvalidEvent:  # such an event is counted as a dead letter
                continue
            if event.data.completed_at >= oldest and not self._is_erased(event.data):
                found.append(Kept(event.data, record.position))
        self._completions.add(found, reached)

    def _is_erased(self, data: InferenceCompleted) -> bool:
        names = {data.completion_id, data.shadow_of or data.answered_by or data.completion_id}
        whose, at = {"project": data.project, "customer": data.customer}, data.completed_at
        return any(self._erasures.take(**whose, source_id=name, at=at) for name in names)
