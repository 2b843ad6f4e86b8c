"""The part of a node that is not the first: it trains what node 0 says, as often as node 0 says, and keeps
nothing. Checkpoints come from node 0's processes, and go to the object store from node 0 alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tunewheel_train.errors import RunFailed
from tunewheel_train.job import Job
from tunewheel_train.progress import Failed, Message
from tunewheel_train.runs.process import Last, ProcessDied
from tunewheel_train.runs.tries import Tries, Try, end

ABOUT_THE_RUN = (
    "recipe", "gradient_checkpointing", "packed", "dtype", "sharding", "corrections", "base_revision",
)  # fmt: skip
"""What node 0's job says for all; the rest are this machine's paths."""


class Follower:
    """``prepare`` brings here what node 0's job needs and returns this machine's job; ``train`` runs it."""

    def __init__(
        self,
        tries: Tries,
        stop: asyncio.Event,
        *,
        prepare: Callable[[Job], Awaitable[Job]],
        train: Callable[[Job], Awaitable[Last]],
    ) -> None:
        self._tries = tries
        self._stop = stop
        self._prepare = prepare
        self._train = train

    async def follow(self) -> None:
        """Take part until the launch has an outcome, or ``stop`` is set. Whether a run that keeps dying is
        given up is decided by node 0.

        Raises:
            TransientError: the store is away; to be called again, it takes up the same try.
        """
        number = 0
        while (this := await self._tries.next(number, self._stop)) is not None:
            number = this.number
            if await this.was_joined_by_another():
                await this.lose("its pod went away, and another came in its place", went=True)
                continue
            try:
                await self._take_part(this)
            except RunFailed as error:  # this machine's trouble: node 0 found and fetched the same
                await this.lose(f"{error.field}: {error.reason}")
            except ProcessDied as error:
                await this.lose(str(error), went=self._stop.is_set())

    async def _take_part(self, this: Try) -> None:
        said = await this.form()
        own = await self._prepare(said)
        if self._stop.is_set():  # the pod in this one's place joins
            return
        await this.join()
        job = own.model_copy(update={name: getattr(said, name) for name in ABOUT_THE_RUN})
        over = asyncio.ensure_future(self._tries.over(this))
        try:
            last = await self._train_with_all(this, job, over)
        finally:
            await end(over)
        if isinstance(last, Failed):
            await this.lose(last.reason, last)

    async def _train_with_all(self, this: Try, job: Job, over: asyncio.Future[None]) -> Last | None:
        """Train once all nodes have joined: processes that wait for others give up. None: it is over."""
        joining, stopping = asyncio.ensure_future(this.all_joined()), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({joining, over, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                return None
            if stopping.done():
                await this.lose("its pod was told to end", went=True)
                return None
        finally:
            await end(joining, stopping)
        training = asyncio.ensure_future(self._train(job))
        try:
            await asyncio.wait({training, over}, return_when=asyncio.FIRST_COMPLETED)
            return training.result() if training.done() else None
        finally:
            await end(training)


async def ignore(message: Message) -> None:
    """Node 0 tells what happens."""
