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
"""For the others to say why, when this node's processes died: their failure may be the cause of it."""
Found = TypeVar("Found")


class Lost(BaseModel):
    """Why a node is out of a try; ``failed`` is what its processes said, if they said something."""

    node: int
    reason: str
    failed: Failed | None = None


@dataclass(frozen=True, slots=True)
class Try:
    """One attempt of all nodes at once."""

    store: ObjectStore
    prefix: str
    node: Node
    every: float
    number: int

    async def form(self) -> Job:
        """Return the job of node 0; its paths are of node 0's machine."""
        data = await self.store.read(f"{self.prefix}/form.json")
        assert data is not None
        return Job.model_validate_json(data)

    async def join(self) -> None:
        """Say that this node starts its processes."""
        await self.store.first(f"{self.prefix}/joined.{self.node.rank}", b"")

    async def lose(self, reason: str, failed: Failed | None = None) -> None:
        """Say that this node is out of it."""
        lost = Lost(node=self.node.rank, reason=reason, failed=failed)
        log.warning("try_lost", number=self.number, node=lost.node, reason=reason)
        await self.store.first(f"{self.prefix}/lost.{lost.node}.json", lost.model_dump_json().encode())

    async def has_joined(self) -> bool:
        """Tell whether this node joined it: the pod that did, if not this one, is gone."""
        return await self.store.exists(f"{self.prefix}/joined.{self.node.rank}")

    async def all_joined(self) -> None:
        """Return when all but node 0, which leads, have."""
        wanted = {f"{self.prefix}/joined.{rank}" for rank in range(1, self.node.count)}

        async def look() -> bool | None:
            return wanted <= set(await self.store.list(self.prefix)) or None

        await _until(look, self.every)

    async def lost(self) -> Lost:
        """Return why it is over, as soon as one of the others said so."""

        async def look() -> Lost | None:
            for path in await self.store.list(self.prefix):
                if path.startswith(f"{self.prefix}/lost."):
                    return Lost.model_validate_json(await self.store.read(path) or b"")
            return None

        return await _until(look, self.every)


class Tries:
    """The tries of the launch below ``prefix``, as ``node`` takes part in them."""

    def __init__(self, store: ObjectStore, prefix: str, node: Node, *, every: float) -> None:
        self._store = store
        self._prefix = prefix
        self.node = node
        self._every = every

    async def lead(
        self, job: Job, stop: asyncio.Event, train: Callable[[], Coroutine[Any, Any, Last]]
    ) -> Last | None:
        """Have all nodes train ``job``, this one by ``train``. Return the last word of this one, or of one
        that failed; None: ``stop`` was set before all had come, however long that took.

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
                return await _outcome(training, losing)
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
        return Try(self._store, prefix, self.node, self._every, number)


async def _outcome(training: asyncio.Task[Last], losing: asyncio.Task[Lost]) -> Last:
    """Return what came of a try: this node's own last word counts, unless its processes just died."""
    await asyncio.wait({training, losing}, return_when=asyncio.FIRST_COMPLETED)
    if training.done() and not isinstance(training.exception(), ProcessDied):
        return training.result()
    await asyncio.wait({losing}, timeout=LAST_WORDS_SECONDS)
    if losing.done() and (losing.result().failed is not None or not training.done()):
        return _of(losing.result())
    return training.result()


def _of(lost: Lost) -> Last:
    if lost.failed is None:
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
