"""What the nodes that train one run together tell each other, in the object store.

    <launch>/tries/000003/job.json     node 0: how the run is trained this time, and which pod of node 0 leads
    <launch>/tries/000003/joined.1     node 1 has the data and the base, and starts its processes
    <launch>/tries/000003/lost.1.json  node 1 is out of this try, and why: it is over for all

Every object is written once. A node that dies says nothing; the pod that comes in its place says it. Nobody
needs to reach another but the training processes, which meet anew in every try.

A node that the cluster has lost may live: its pod then trains beside the pod in its place. Of two pods of one
node the pod that came last stays. A pod that took part in a try, and finds another pod of its node in that
try or a later one, stops like a pod that was told to end (``LeaseLost``).
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
from tunewheel_runtime.waiting import first_of

from tunewheel_train.job import Job
from tunewheel_train.progress import Failed
from tunewheel_train.runs.node import Node
from tunewheel_train.runs.process import Last, ProcessDied

log = structlog.get_logger(__name__)
OUTCOME, TRIES = "outcome.json", "tries"
"""What lies of a launch in the store: how it ended, and what its pods tell each other until then."""
LAST_WORDS_SECONDS = 15.0
"""At least, for the other nodes to say why, when the processes of one died: the failure of another node's
processes may be the cause."""
AWAITED_SECONDS = 60.0
"""Between two log lines about nodes that have not joined."""
REPLACED = "another pod is in the place of this one"
ENDED = "the launch has ended"
Found = TypeVar("Found")


class Begun(BaseModel):
    """What node 0 begins a try with. The paths of ``job`` are of its machine."""

    pod: str
    job: Job


class Lost(BaseModel):
    """Why a node is out of a try. ``failed`` is what its processes said, if they said something. ``went``:
    its pod is going or gone and another comes in its place, which speaks of the cluster, not of the run."""

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
        """Seconds that a node waits for the other nodes to say why they are out."""
        return max(LAST_WORDS_SECONDS, 2 * self.every)

    async def begun(self) -> Begun | None:
        """Return what node 0 said; None: the launch has ended, and its tries are deleted."""
        data = await self.store.read(f"{self.prefix}/job.json")
        return Begun.model_validate_json(data) if data is not None else None

    async def join(self) -> None:
        """Say that this node starts its processes, unless another pod of this node said so before."""
        await self.store.first(f"{self.prefix}/joined.{self.node.rank}", self.pod.encode())

    async def lose(self, reason: str, failed: Failed | None = None, *, went: bool = False) -> None:
        """Say that this node is out of the try. Where the store is away, repeat until it has the note."""
        lost = Lost(node=self.node.rank, pod=self.pod, reason=reason, failed=failed, went=went)
        log.warning("try_lost", number=self.number, node=lost.node, reason=reason)

        async def say() -> bytes:
            path = f"{self.prefix}/lost.{lost.node}.json"
            return await self.store.first(path, lost.model_dump_json().encode())

        await _until(say, self.every)

    async def was_joined_by_another(self) -> bool:
        """Tell whether another pod of this node joined it."""
        joined = await self.store.read(f"{self.prefix}/joined.{self.node.rank}")
        return joined is not None and joined != self.pod.encode()

    async def was_ended_by_another(self) -> bool:
        """Tell whether another pod of this node said that the node is out of it."""
        lost = await self.store.read(f"{self.prefix}/lost.{self.node.rank}.json")
        return lost is not None and Lost.model_validate_json(lost).pod != self.pod

    async def all_joined(self) -> Literal[True]:
        """Return when all but node 0, which leads, have."""
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
        """Return why it is over. What the processes of a node failed by comes first, and that a pod went
        comes second; processes that died may have died of either, so other nodes are given time to say it."""
        since: float | None = None

        async def look() -> Lost | None:
            nonlocal since
            notes = [
                await self.store.read(path)
                for path in await self.store.list(self.prefix)
                if path.startswith(f"{self.prefix}/lost.")
            ]
            found = [Lost.model_validate_json(note) for note in notes if note is not None]
            if not found:
                return None
            since = since or time.monotonic()
            cause = min(found, key=lambda one: (one.failed is None, not one.went))
            final = cause.failed is not None or cause.went or len(found) == self.node.count - 1
            return cause if final or time.monotonic() - since >= self.patience else None

        return await _until(look, self.every)


class Tries:
    """The tries of the launch below ``prefix``, as this pod of ``node`` takes part in them for as long as it
    lives."""

    def __init__(self, store: ObjectStore, prefix: str, node: Node, *, every: float) -> None:
        self._store = store
        self._prefix = prefix
        self.node = node
        self._pod = uuid4().hex
        self._every = every
        self._last: Try | None = None
        """That this pod took part in."""

    async def lead(
        self, job: Job, stop: asyncio.Event, train: Callable[[], Coroutine[Any, Any, Last]]
    ) -> Last | None:
        """Have all nodes train ``job``, this one by ``train``. Return the last word of this one, or of one
        that failed; None: ``stop`` was set before all had come, however long that took, or a pod went away.

        Raises:
            ProcessDied: of this node, or another; this one's processes were killed then.
            LeaseLost: another pod leads since, or the launch has ended; this one's processes were killed.
        """
        this = await self._begin(job)
        joined, lost, over, _ = await first_of(this.all_joined(), this.lost(), self.over(this), stop.wait())
        if over:
            raise LeaseLost(over)
        if lost is not None:
            return _of(lost)
        return await self._outcome(this, train) if joined else None

    async def _outcome(self, this: Try, train: Callable[[], Coroutine[Any, Any, Last]]) -> Last | None:
        """Return what came of a try: this node's own last word counts, unless its processes just died."""
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
        """Tell whether another pod of this node is in ``this``, which is over then: that pod is gone.

        Raises:
            LeaseLost: the other pod came later than this one.
        """
        taken = await this.was_joined_by_another()
        if self._last is not None and (taken or await self._last.was_ended_by_another()):
            raise LeaseLost(REPLACED)
        if taken:
            await this.lose("its pod went away, and another came in its place", went=True)
        return taken

    async def join(self, this: Try) -> bool:
        """Say that this node starts its processes. Return False, or raise LeaseLost, where another pod of
        this node is in the try (``is_taken``)."""
        await this.join()
        if await self.is_taken(this):
            return False
        self._last = this
        return True

    async def next(self, after: int, stop: asyncio.Event) -> Try | None:
        """Return the newest try behind ``after`` as soon as node 0 begins one; None: the launch has ended, or
        ``stop`` was set."""

        async def look() -> Try | bool | None:
            if stop.is_set() or await self.has_ended():
                return False
            newest = await self._newest()
            return newest if newest is not None and newest.number > after else None

        found = await _until(look, self._every, stop)
        return found if isinstance(found, Try) else None

    async def over(self, this: Try) -> str:
        """Return why ``this`` is over, in words for the pod that leads it, once node 0 began another try or
        the launch has ended."""
        newer = await self.next(this.number, asyncio.Event())
        return ENDED if newer is None else REPLACED

    async def has_ended(self) -> bool:
        return await self._store.exists(f"{self._prefix}/{OUTCOME}")

    async def _begin(self, job: Job) -> Try:
        """Begin the next try. Raises LeaseLost where another pod has led since this one did, or the launch
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
    """Return what ``look`` finds, as soon as it finds something; a store that is away is asked again."""
    while True:
        try:
            if (found := await look()) is not None:
                return found
        except TransientError as error:
            log.warning("nodes_not_looked_at", error=str(error))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(every):
                await (stop or asyncio.Event()).wait()
