"""The part of the nodes other than node 0: they train the job that node 0 gives, as often as node 0 begins a
try.

They keep nothing. Node 0's processes send them checkpoints, and only node 0 uploads checkpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from tunewheel_runtime.waiting import first_of

from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.progress import Failed, Message
from tunewheel_train.runs.process import Last, ProcessDied
from tunewheel_train.runs.tries import Tries, Try

ABOUT_THE_RUN = (
    "recipe", "gradient_checkpointing", "packed", "dtype", "sharding", "corrections", "base_revision",
)  # fmt: skip
"""The fields of node 0's job that all nodes use. The other fields are paths of each machine."""


class Follower:
    """``prepare`` downloads what node 0's job needs and returns this machine's job; ``train`` runs it."""

    def __init__(
        self,
        tries: Tries,
        stop: asyncio.Event,
        *,
        prepare: Callable[[Job], Awaitable[Job]],
        train: Callable[[Job], Coroutine[Any, Any, Last]],
    ) -> None:
        self._tries = tries
        self._stop = stop
        self._prepare = prepare
        self._train = train

    async def follow(self) -> None:
        """Take part until the launch has an outcome, or ``stop`` is set. Node 0 decides when to give up.

        Raises:
            LeaseLost: a newer pod replaced this one. The processes here were killed.
            TransientError: the store is away. Call this again: it continues with the same try.
        """
        number = 0
        while (this := await self._tries.next(number, self._stop)) is not None:
            number = this.number
            try:
                if not await self._tries.is_taken(this):
                    await self._take_part(this)
            except RunFailed as error:  # a fault of this machine: node 0 found and downloaded the same files
                await this.lose(f"{error.field}: {error.reason}")
            except ProcessDied as error:
                await this.lose(str(error), went=self._stop.is_set())

    async def _take_part(self, this: Try) -> None:
        begun = await this.begun()
        if begun is None:
            return
        own = await self._prepare(begun.job)
        if self._stop.is_set():  # the pod that replaces this one will join
            return
        if not await self._tries.join(this):
            return
        job = own.model_copy(update={name: getattr(begun.job, name) for name in ABOUT_THE_RUN})
        last = await self._train_with_all(this, job)
        if isinstance(last, Failed):
            await this.lose(last.reason, last)

    async def _train_with_all(self, this: Try, job: Job) -> Last | None:
        """Train once all nodes have joined, because processes that wait for others give up after a time.
        None: the try is over."""
        over, stopping, _ = await first_of(self._tries.over(this), self._stop.wait(), this.all_joined())
        if over:
            return None
        if stopping:
            await this.lose("its pod was told to end", went=True)
            return None
        last, _ = await first_of(self._train(job), self._tries.over(this))
        return last


async def ignore(message: Message) -> None:
    """Ignore a message: node 0 reports progress."""
