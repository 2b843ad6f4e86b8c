"""Keeps the log of each project packed, and folds a project when somebody asks for it.

A project is at rest or in memory. Of one at rest there is what lists say. Reading the log packs records
without decoding them. So the start takes little time and memory, whatever the number of runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import structlog
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.topics import BY_NAME
from tunewheel_runtime.deadletter import Undecoded
from tunewheel_runtime.process import uncollected
from tunewheel_runtime.view import LogReader
from tunewheel_runtime.waiting import reporting

from tunewheel_console.checkpoint import (
    Begins,
    Checkpoint,
    Index,
    Kept,
    Packed,
    begins_elsewhere,
    file_of,
    in_log_order,
    project_in,
)
from tunewheel_console.control.events import HELD
from tunewheel_console.control.projects import is_asked, rest_of, summary_of
from tunewheel_console.state import ConsoleState, Rest

log = structlog.get_logger(__name__)
MOST_IN_MEMORY = 200_000
"""Of so many records projects stay in memory: they take 400 MB. More do if they are in use."""
IN_USE_SECONDS = 600.0
"""A project stays in memory for so long after the last request or event."""
LOOK_SECONDS = 5.0
"""How often projects are looked for that a dead letter has changed."""
LOOKS = 120
"""After so many of them what was read is written to the store."""
STOP_SECONDS = 10.0
"""How long the end of the process waits for a write."""
SLICE = 20
"""So many records are folded before other tasks have a turn."""
ASIDE_SECONDS = 0.02
"""How long work in the background waits after each turn while somebody waits for another project."""


class ForeignLog(TransientError):
    """The log is not the one of which the checkpoint is a copy."""


class Archive:
    """The log of all projects. ``reader`` is set before the start. ``told`` gets the events that came since
    the checkpoint. ``then`` is awaited when the projects that wait for people are in memory."""

    reader: LogReader

    def __init__(
        self,
        state: ConsoleState,
        checkpoint: Checkpoint,
        *,
        rules: str,
        told: Callable[[Envelope[Any]], None] = lambda _: None,
        then: Callable[[], Awaitable[None]] | None = None,
        failed: Callable[[BaseException], None] = lambda _: None,
    ) -> None:
        self._state = state
        self._checkpoint = checkpoint
        self._rules = f"{rules} {content_sha256(Rest.model_json_schema())[:12]}"
        self._told = told
        self._then = then
        self._failed = failed
        self._is_trusted = True
        self._task: asyncio.Task[None] | None = None
        self._writing = asyncio.Lock()
        self._urgent = 0
        self._forget()
        state.projects.fold, state.projects.open = self._fold, self.open

    def _forget(self) -> None:
        if self._task is not None:
            self._task.cancel()
        self._state.projects.clear()
        self._state.projects.resting.clear()
        self._state.refused_before = frozenset()
        self._is_live = False
        self._begins: Begins = {}
        """Where the log began at the start."""
        self._packed: dict[str, tuple[Packed, Packed]] = {}
        """By project: the records of topics that are kept for ever, and those of other topics."""
        self._last: dict[str, tuple[int, str]] = {}
        """By partition: the offset and the id of the last record that was read."""
        self._before: dict[str, tuple[int, str]] = {}
        """The same, of the checkpoint."""
        self._expected: dict[str, tuple[int, str]] = {}
        """Those of them that the log must still have."""
        self._written: Index | None = None
        self._news: deque[Undecoded] = deque(maxlen=HELD)

    async def begins(self) -> dict[str, dict[str, int] | None]:
        """Read the checkpoint, and return from where to read the log."""
        self._forget()
        self._begins = await self._look()
        found = await self._checkpoint.read(self._begins) if self._is_trusted else None
        if found is None:
            return {}
        index, files = found
        self._before, self._last = index.last, dict(index.last)
        self._expected = {at: last for at, last in self._before.items() if at in self._begins}
        self._written, again = index, {} if index.rules == self._rules else {"is_behind": True}
        self._state.refused_before = frozenset(index.refused)
        for name, kept in index.projects.items():
            self._packed[name] = Packed(files[name], kept.records), Packed()
            self._state.projects.resting[name] = kept.rest.model_copy(update=again)
        begins: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for place, (offset, _) in self._expected.items():
            topic, _, number = place.partition(" ")
            begins[topic][number] = offset
        return {**begins}

    async def _look(self) -> Begins:
        spans = await self.reader.look()
        return {f"{name} {n}": at.begin for (name, n), at in spans.items() if BY_NAME[name].is_kept_for_ever}

    async def keep(self, record: Undecoded) -> bool:
        """Pack a record. False: its project is in memory, so the record is to be decoded and applied too.
        Raises ForeignLog: the log is another one than that of the checkpoint."""
        topic, offset = BY_NAME[record.position.topic], record.position.offset
        place = f"{topic.name} {record.position.partition}"
        at = offset, record.headers.get("ce_id", b"").decode("utf-8", "replace")
        if (expected := self._expected.pop(place, None)) is not None:
            self._require(expected == at)
            return True  # it is in the checkpoint
        name = project_in(record)
        if name is None:
            return False
        if self._is_live:
            await self.open(name)
        try:
            self._packed.setdefault(name, (Packed(), Packed()))[not topic.is_kept_for_ever].add(record)
        except UnicodeDecodeError:
            return False
        self._last[place] = at
        if self._is_live:
            return False
        rest = self._state.projects.resting.setdefault(name, Rest())
        if offset > self._before.get(place, (-1, ""))[0]:
            rest.is_behind = True
            self._news.append(record)
        return True

    def _require(self, is_same: bool) -> None:
        if not is_same:
            self._is_trusted = False
            raise ForeignLog("the log is not that of the checkpoint; it is read from its beginning")

    async def start(self) -> None:
        """Fold the projects of which nothing is known yet, once the log was read. Raises as ``keep``."""
        self._require(not self._expected)
        self._is_live = True
        for record in in_log_order(self._news):
            if record.value is not None and (event := self.reader.event_of(record)) is not None:
                self._told(event)
        self._news.clear()
        await self._open_each(lambda _, rest: rest.summary is None)
        self._task = asyncio.create_task(self._run(), name="archive")
        self._task.add_done_callback(reporting(self._failed))

    async def stop(self) -> None:
        """End the work in the background. Nothing is written: what the next start reads of the log itself is
        what it can tell to readers of events that come again."""
        if self._task is not None:
            with contextlib.suppress(TimeoutError):  # a request that is cut off may abort the process's end
                async with asyncio.timeout(STOP_SECONDS), self._writing:
                    pass
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        """Fold the projects that wait for people or have news, and as many others as memory is meant for.
        Then write the checkpoint from time to time."""
        await self._open_each(lambda _, rest: rest.is_asked)
        if self._then is not None:
            await self._then()
        await self._open_each(lambda name, rest: rest.is_behind or self._has_room(name))
        while True:
            await self.write()
            for _ in range(LOOKS):
                self._state.look(datetime.now(UTC))
                await asyncio.sleep(LOOK_SECONDS)
                await self._open_each(lambda _, rest: rest.is_behind)

    async def _open_each(self, is_meant: Callable[[str, Rest], bool]) -> None:
        for name, rest in list(self._state.projects.resting.items()):
            if is_meant(name, rest):
                await self.open(name, is_urgent=False)
                self._make_room()
        self._make_room()

    async def open(self, name: str, *, is_urgent: bool = True) -> None:
        """Fold a project, and let other tasks have their turns meanwhile, the urgent ones most of them."""
        self._urgent += is_urgent
        try:
            with uncollected():
                for number, _ in enumerate(self._folding(name)):
                    if number % SLICE == 0:
                        await asyncio.sleep(0 if is_urgent or not self._urgent else ASIDE_SECONDS)
        finally:
            self._urgent -= is_urgent

    def _fold(self, name: str) -> None:
        with uncollected():
            deque(self._folding(name), maxlen=0)

    def _folding(self, name: str) -> Iterator[None]:
        projects = self._state.projects
        rest = projects.resting.get(name)
        if rest is None:
            return
        project, records = self._state.begin(name), list[Undecoded]()
        for packed in self._packed[name]:
            for record in packed:
                records.append(record)
                yield
        for record in in_log_order(records):
            topic = BY_NAME[record.position.topic]
            if topic.is_tombstone(record.value):
                project.forget(topic)
            elif (event := self.reader.event_of(record)) is not None:
                self._state.apply_to(project, event)
            yield
        self._state.undo_refused(project)
        if projects.resting.get(name) is rest:  # nobody folded it meanwhile
            del projects.resting[name]
            if project.version:  # else none of its records is an event
                projects[name] = project
                summary_of(project)

    def _weight(self, name: str) -> int:
        return sum(packed.count for packed in self._packed.get(name, ()))

    def _has_room(self, name: str) -> bool:
        return sum(map(self._weight, self._state.projects)) + self._weight(name) <= MOST_IN_MEMORY

    def _make_room(self) -> None:
        projects, since = self._state.projects, time.monotonic() - IN_USE_SECONDS
        weight = sum(map(self._weight, projects))
        for name in sorted(projects, key=lambda name: projects.asked.get(name, since)):
            if weight <= MOST_IN_MEMORY or projects.asked.get(name, since) > since:
                return
            if name in self._packed and not is_asked(projects[name]):
                weight -= self._weight(name)
                projects.resting[name] = rest_of(projects.pop(name))
                projects.asked.pop(name, None)

    async def write(self) -> None:
        """Write what was read to the store, unless nothing is new. A store that is away is logged."""
        async with self._writing:
            try:
                if begins_elsewhere(self._begins, await self._look()):
                    log.warning("log_was_cut", consequence="the next start reads it from its beginning")
                    await self._checkpoint.remove()
                    return
                index, files = self._snapshot(await self._checkpoint.paths())
                if index != self._written:
                    await self._checkpoint.write(index, files)
                    self._written = index
            except TransientError as error:
                log.warning("checkpoint_not_written", error=str(error))

    def _snapshot(self, present: set[str]) -> tuple[Index, dict[str, bytes]]:
        """Return the index of what was read, and the files that are not in the store as they are now."""
        state, kept, files = self._state, dict[str, Kept](), dict[str, bytes]()
        for name, (packed, _) in self._packed.items():
            rest = state.projects.resting.get(name)
            if rest is None and name not in state.projects:
                continue  # none of its records is an event
            rest = rest or rest_of(state.projects[name])
            before = self._written.projects.get(name) if self._written else None
            file = before.file if before is not None and before.records == packed.count else None
            if file is None or file.path not in present:
                files[name] = packed.to_bytes()
                file = file_of(files[name])
            kept[name] = Kept(rest=rest.model_copy(), file=file, records=packed.count)
        refused = tuple(sorted({*state.refused, *state.refusals, *state.refused_before}))
        index = Index(
            rules=self._rules, begins=self._begins, last=dict(self._last), refused=refused, projects=kept
        )
        return index, files
