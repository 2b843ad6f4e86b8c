"""What the nodes that train one run together tell each other, in the object store.

    <launch>/tries/000003/form.json    node 0: how the run is trained this time
    <launch>/tries/000003/joined.1     node 1 has the data and the base, and starts its processes
    <launch>/tries/000003/lost.1.json  node 1 is out of this try, and why: it is over for all

Every object is written once. A node that dies says nothing; the pod that comes in its place says it. Nobody
needs to reach another but the training processes, which meet anew in every try.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.store import ObjectStore

from tunewheel_train.job import Job
from tunewheel_train.progress import Failed
from tunewheel_train.runs.node import Node
from tunewheel_train.runs.process import Last, ProcessDied

log = structlog.get_logger(__name__)
LAST_WORDS_SECONDS = 15.0
"""At least, for the other nodes to say why, when the processes of one died: the failure of another node's
processes may be the cause."""
AWAITED_SECONDS = 60.0
"""Between two log lines about nodes that have not joined."""
Found = TypeVar("Found")


class Lost(BaseModel):
    """Why a node is out of a try. ``failed`` is what its processes said, if they said something. ``went``:
    its pod is going or gone and another comes in its place, which speaks of the cluster, not of the run."""

    node: int
    reason: str
    failed: Failed | None = None
    went: bool = False


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt of all nodes at once."""

    store: ObjectStore
    prefix: str
    node: Node
    process: str
    """A name that no other process has. A pod that replaces another is known by a new name."""
    every: float
    number: int

    @property
    def patience(self) -> float:
        """Seconds that a node waits for the other nodes to say why they are out."""
        return max(LAST_WORDS_SECONDS, 2 * self.every)

    async def form(self) -> Job:
        """Return the job of node 0; its paths are of node 0's machine."""
        data = await self.store.read(f"{self.prefix}/form.json")
        assert data is not None
        return Job.model_validate_json(data)

    async def join(self) -> None:
        """Say that this node starts its processes."""
        await self.store.first(f"{self.prefix}/joined.{self.node.rank}", self.process.encode())

    async def lose(self, reason: str, failed: Failed | None = None, *, went: bool = False) -> None:
        """Say that this node is out of the try. Where the store is away, repeat until it has the note."""
        lost = Lost(node=self.node.rank, reason=reason, failed=failed, went=went)
        log.warning("try_lost", number=self.number, node=lost.node, reason=reason)

        async def say() -> bytes:
            path = f"{self.prefix}/lost.{lost.node}.json"
            return await self.store.first(path, lost.model_dump_json().encode())

        await _until(say, self.every)

    async def was_joined_by_another(self) -> bool:
        """Tell whether another process joined it for this node: that process's pod is gone."""
        joined = await self.store.read(f"{self.prefix}/joined.{self.node.rank}")
        return joined is not None and joined != self.process.encode()

    async def all_joined(self) -> None:
        """Return when all but node 0, which leads, have."""
        told = -math.inf

        async def look() -> bool | None:
            nonlocal told
            paths = await self.store.list(self.prefix)
            ranks = range(1, self.node.count)
            missing = [rank for rank in ranks if f"{self.prefix}/joined.{rank}" not in paths]
            if missing and time.monotonic() - told >= AWAITED_SECONDS:
                told = time.monotonic()
                log.info("nodes_awaited", number=self.number, missing=missing)
            return not missing or None

        await _until(look, self.every)

    async def lost(self) -> Lost:
        """Return why it is over. What the processes of a node failed by comes first, and that a pod went
        comes second; processes that died may have died of either, so other nodes are given time to say it."""
        since: float | None = None

        async def look() -> Lost | None:
            nonlocal since
            found = [
                Lost.model_validate_json(await self.store.read(path) or b"")
                for path in await self.store.list(self.prefix)
                if path.startswith(f"{self.prefix}/lost.")
            ]
            if not found:
                return None
            since = since or time.monotonic()
            cause = min(found, key=lambda one: (one.failed is None, not one.went))
            final = cause.failed is not None or cause.went or len(found) == self.node.count - 1
            return cause if final or time.monotonic() - since >= self.patience else None

        return await _until(look, self.every)


class Tries:
    """The tries of the launch below ``prefix``, as ``node`` takes part in them. ``process`` names this
    process as long as it lives."""

    def __init__(self, store: ObjectStore, prefix: str, node: Node, *, process: str, every: float) -> None:
        self._store = store
        self._prefix = prefix
        self.node = node
        self._process = process
        self._every = every

    async def lead(
        self, job: Job, stop: asyncio.Event, train: Callable[[], Coroutine[Any, Any, Last]]
    ) -> Last | None:
        """Have all nodes train ``job``, this one by ``train``. Return the last word of this one, or of one
        that failed; None: ``stop`` was set before all had come, however long that took, or a pod went away.

        Raises:
            ProcessDied: of this node, or another; this one's processes were killed then.
        """
        this = await self._begin(job)
        tasks = joining, losing, stopping = (
            asyncio.ensure_future(this.all_joined()),
            asyncio.ensure_future(this.lost()),
            asyncio.ensure_future(stop.wait()),
        )
        training: asyncio.Task[Last] | None = None
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if not losing.done():
                if not joining.done():
                    return None
                training = asyncio.ensure_future(train())
                return await _outcome(training, losing, this.patience)
            return _of(losing.result())
        finally:
            await end(joining, losing, stopping, *([training] if training else []))

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

    async def over(self, this: Try) -> None:
        """Return when node 0 began another try than ``this``, or the launch has ended."""
        await self.next(this.number, asyncio.Event())

    async def has_ended(self) -> bool:
        return await self._store.exists(f"{self._prefix}/outcome.json")

    async def _begin(self, job: Job) -> Try:
        newest = await self._newest()
        this = self._try(1 + (newest.number if newest is not None else 0))
        await self._store.put(f"{this.prefix}/form.json", job.model_dump_json().encode())
        log.info("try_begun", number=this.number, nodes=self.node.count)
        return this

    async def _newest(self) -> Try | None:
        forms = [
            path for path in await self._store.list(f"{self._prefix}/tries") if path.endswith("/form.json")
        ]
        return self._try(int(forms[-1].split("/")[-2])) if forms else None

    def _try(self, number: int) -> Try:
        prefix = f"{self._prefix}/tries/{number:06}"
        return Try(self._store, prefix, self.node, self._process, self._every, number)


async def _outcome(training: asyncio.Task[Last], losing: asyncio.Task[Lost], patience: float) -> Last | None:
    """Return what came of a try: this node's own last word counts, unless its processes just died."""
    await asyncio.wait({training, losing}, return_when=asyncio.FIRST_COMPLETED)
    if training.done() and not isinstance(training.exception(), ProcessDied):
        return training.result()
    await asyncio.wait({losing}, timeout=patience)
    if losing.done():
        lost = losing.result()
        if lost.failed is not None or lost.went or not training.done():
            return _of(lost)
    return training.result()


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


async def end(*tasks: asyncio.Future[Any]) -> None:
    """Cancel ``tasks``, and return when they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
