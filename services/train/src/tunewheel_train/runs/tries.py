"""Coordinates the nodes that train one run together, by notes in the object store.

A try is one attempt of all nodes at the run. Its notes are:

    <launch>/tries/000003/job.json     node 0: the job of this try, and which pod of node 0 leads
    <launch>/tries/000003/joined.1     node 1 has the data and the base, and starts its processes
    <launch>/tries/000003/lost.1.json  node 1 has left the try, and why. The try is then over for all nodes.

Every note is written once. If a node dies, the pod that replaces it writes the note. Only the training
processes connect to each other, anew in every try.

A node that the cluster has lost may still run: its old pod then trains beside its new one. The newer pod of a
node stays. A pod that took part in a try, and finds another pod of its node in that try or a later one, stops
as if it had been told to end (``LeaseLost``).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from uuid import uuid4

import structlog
from pydantic import BaseModel
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.jobs import LeaseLost
from tunewheel_runtime.store import ArtifactConflict, ObjectStore
from tunewheel_runtime.waiting import first_of, within

from tunewheel_train.job import Job
from tunewheel_train.progress import Failed
from tunewheel_train.runs.process import Last, ProcessDied
from tunewheel_train.runs.slots import Node

log = structlog.get_logger(__name__)
OUTCOME, TRIES = "outcome.json", "tries"
"""The names below a launch in the store: its outcome, and the notes of its pods."""
LAST_WORDS_SECONDS = 15.0
"""When the processes of one node died, wait at least so long for notes of the other nodes: a failure there
may be the cause."""
AWAITED_SECONDS = 60.0
"""Seconds between two log lines about nodes that have not joined."""
REPLACED = "another pod is in the place of this one"
ENDED = "the launch has ended"
Found = TypeVar("Found")


class Begun(BaseModel):
    """The note by which node 0 begins a try. The paths in ``job`` are those of node 0."""

    pod: str
    job: Job


class Lost(BaseModel):
    """The note of a node that has left a try, and why. ``failed`` is the failure that its processes reported,
    if any. ``went``: its pod ends or is gone and will be replaced, which is no fault of the run."""

    node: int
    pod: str
    reason: str
    failed: Failed | None = None
    went: bool = False


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt of all nodes at once."""

    store: ObjectStore
    prefix: str
    node: Node
    pod: str
    every: float
    number: int

    @property
    def patience(self) -> float:
        """Seconds that a node waits for the other nodes' notes."""
        return max(LAST_WORDS_SECONDS, 2 * self.every)

    async def begun(self) -> Begun | None:
        """Return node 0's note; None: the launch has ended, and its tries are deleted."""
        return await self.store.document(f"{self.prefix}/job.json", Begun)

    async def join(self) -> None:
        """Note that this node starts its processes, unless another pod of this node did."""
        await self.store.first(f"{self.prefix}/joined.{self.node.rank}", self.pod.encode())

    async def lose(self, reason: str, failed: Failed | None = None, *, went: bool = False) -> None:
        """Note that this node has left the try. Retry while the store is away."""
        lost = Lost(node=self.node.rank, pod=self.pod, reason=reason, failed=failed, went=went)
        log.warning("try_lost", number=self.number, node=lost.node, reason=reason)

        path = f"{self.prefix}/lost.{lost.node}.json"
        await _until(lambda: self.store.first_document(path, lost), self.every)

    async def was_joined_by_another(self) -> bool:
        """Return whether another pod of this node joined the try."""
        joined = await self.store.read(f"{self.prefix}/joined.{self.node.rank}")
        return joined is not None and joined != self.pod.encode()

    async def was_ended_by_another(self) -> bool:
        """Return whether another pod of this node noted that the node has left the try."""
        lost = await self.store.document(f"{self.prefix}/lost.{self.node.rank}.json", Lost)
        return lost is not None and lost.pod != self.pod

    async def all_joined(self) -> Literal[True]:
        """Return when all nodes other than node 0 have joined."""
        told = -math.inf

        async def look() -> Literal[True] | None:
            nonlocal told
            paths = await self.store.list(self.prefix)
            ranks = range(1, self.node.count)
            missing = [rank for rank in ranks if f"{self.prefix}/joined.{rank}" not in paths]
            if missing and time.monotonic() - told >= AWAITED_SECONDS:
                told = time.monotonic()
                log.info("nodes_awaited", number=self.number, missing=missing)
            return not missing or None

        return await _until(look, self.every)

    async def lost(self) -> Lost:
        """Wait until the try is over, and return why. A failure that a node's processes reported comes first,
        then a pod that went away. Processes that merely died may have died of either, so other nodes get time
        for their notes."""
        since: float | None = None

        async def look() -> Lost | None:
            nonlocal since
            paths = [one for one in await self.store.list(self.prefix) if "/lost." in one]
            notes = [await self.store.document(path, Lost) for path in paths]
            found = [note for note in notes if note is not None]
            if not found:
                return None
            since = since or time.monotonic()
            cause = min(found, key=lambda one: (one.failed is None, not one.went))
            final = cause.failed is not None or cause.went or len(found) == self.node.count - 1
            return cause if final or time.monotonic() - since >= self.patience else None

        return await _until(look, self.every)


class Tries:
    """The tries of the launch below ``prefix``, and this pod's part in them. The pod belongs to ``node``."""

    def __init__(self, store: ObjectStore, prefix: str, node: Node, *, every: float) -> None:
        self._store = store
        self._prefix = prefix
        self.node = node
        self._pod = uuid4().hex
        self._every = every
        self._last: Try | None = None
        """The last try that this pod took part in."""

    async def lead(
        self, job: Job, stop: asyncio.Event, train: Callable[[], Coroutine[Any, Any, Last]]
    ) -> Last | None:
        """Make all nodes train ``job``; this node runs ``train``. Return the last message of this node, or of
        a node that failed. None: ``stop`` was set before all nodes had joined, or a pod went away.

        Raises:
            ProcessDied: the processes of a node died. This node's processes were killed.
            LeaseLost: another pod leads now, or the launch has ended. This node's processes were killed.
        """
        this = await self._begin(job)
        joined, lost, over, _ = await first_of(this.all_joined(), this.lost(), self.over(this), stop.wait())
        if over:
            raise LeaseLost(over)
        if lost is not None:
            return _of(lost)
        return await self._outcome(this, train) if joined else None

    async def _outcome(self, this: Try, train: Callable[[], Coroutine[Any, Any, Last]]) -> Last | None:
        """Return the outcome of a try. This node's last message counts, unless its processes died without
        one."""
        try:
            last, lost, over = await first_of(train(), this.lost(), self.over(this))
        except ProcessDied:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(this.patience):
                    lost, over = await first_of(this.lost(), self.over(this))
                if over:
                    raise LeaseLost(over) from None
                if lost.failed is not None or lost.went:
                    return lost.failed
            raise
        if last is None and over:
            raise LeaseLost(over)
        return last or _of(lost)

    async def is_taken(self, this: Try) -> bool:
        """Return whether another pod of this node is in the try ``this``. If so, end the try: that pod is
        gone. Raises LeaseLost: the other pod came later than this one, which must stop."""
        taken = await this.was_joined_by_another()
        if self._last is not None and (taken or await self._last.was_ended_by_another()):
            raise LeaseLost(REPLACED)
        if taken:
            await this.lose("its pod went away, and another came in its place", went=True)
        return taken

    async def join(self, this: Try) -> bool:
        """Note that this node starts its processes. If another pod of this node is in the try, return False
        or raise LeaseLost, as ``is_taken`` says."""
        await this.join()
        if await self.is_taken(this):
            return False
        self._last = this
        return True

    async def next(self, after: int, stop: asyncio.Event) -> Try | None:
        """Wait for a try with a number above ``after`` and return the newest one; None: the launch has ended,
        or ``stop`` was set."""

        async def look() -> Try | bool | None:
            if stop.is_set() or await self.has_ended():
                return False
            newest = await self._newest()
            return newest if newest is not None and newest.number > after else None

        found = await _until(look, self._every, stop)
        return found if isinstance(found, Try) else None

    async def over(self, this: Try) -> str:
        """Wait until node 0 began another try or the launch has ended, and return the reason for the pod that
        led ``this``."""
        newer = await self.next(this.number, asyncio.Event())
        return ENDED if newer is None else REPLACED

    async def has_ended(self) -> bool:
        return await self._store.exists(f"{self._prefix}/{OUTCOME}")

    async def _begin(self, job: Job) -> Try:
        """Begin the next try. Raises LeaseLost if another pod has led since this one did, or if the launch
        has ended and its tries are deleted."""
        begun = Begun(pod=self._pod, job=job).model_dump_json().encode()
        while True:
            newest = await self._newest()
            before = await newest.begun() if newest is not None else None
            if self._last is not None and (before is None or before.pod != self._pod):
                raise LeaseLost(ENDED if await self.has_ended() else REPLACED)
            this = self._try(1 + (newest.number if newest is not None else 0))
            try:
                await self._store.put(f"{this.prefix}/job.json", begun)
            except ArtifactConflict:  # another pod was quicker
                continue
            self._last = this
            log.info("try_begun", number=this.number, nodes=self.node.count)
            return this

    async def _newest(self) -> Try | None:
        begun = [
            path for path in await self._store.list(f"{self._prefix}/{TRIES}") if path.endswith("/job.json")
        ]
        return self._try(int(begun[-1].split("/")[-2])) if begun else None

    def _try(self, number: int) -> Try:
        prefix = f"{self._prefix}/{TRIES}/{number:06}"
        return Try(self._store, prefix, self.node, self._pod, self._every, number)


def _of(lost: Lost) -> Last | None:
    if lost.failed is None and not lost.went:
        raise ProcessDied(None, f"node {lost.node}: {lost.reason}")
    return lost.failed


async def _until(
    look: Callable[[], Awaitable[Found | None]], every: float, stop: asyncio.Event | None = None
) -> Found:
    """Call ``look`` every ``every`` seconds until it finds something, and return that. Go on while the store
    is away."""
    while True:
        try:
            if (found := await look()) is not None:
                return found
        except TransientError as error:
            log.warning("nodes_not_looked_at", error=str(error))
        await within(every, (stop or asyncio.Event()).wait())
