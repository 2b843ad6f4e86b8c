"""The answers to one request. Each answer is a row of the batch; their steps are merged into one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from tunewheel_generation.generation import Generation, Progress
from tunewheel_runtime.waiting import end_all

from tunewheel_engine.engine import Engine
from tunewheel_engine.errors import EngineFailed


class Choices:
    """The answers to one request. The constructor queues all ``generations`` together.

    Raises Overloaded, EngineFailed, ModelNotFound.
    """

    def __init__(self, engine: Engine, generations: Sequence[Generation]) -> None:
        self.generations = tuple(generations)
        self._steps = engine.start_all(self.generations)

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens of the prompt, which all answers share."""
        return len(self.generations[0].prompt)

    def cancel(self) -> None:
        """Free all rows before the next step."""
        for generation in self.generations:
            generation.cancel()

    async def steps(self) -> AsyncGenerator[tuple[int, Progress]]:
        """Yield the number of an answer and its next step, in the order in which they are generated.

        Raises EngineFailed, and ends the other answers, when one of them fails.
        """
        events: asyncio.Queue[tuple[int, Progress] | EngineFailed] = asyncio.Queue()

        async def follow(number: int, steps: AsyncGenerator[Progress]) -> None:
            try:
                async with aclosing(steps):
                    async for step in steps:
                        events.put_nowait((number, step))
            except EngineFailed as error:
                events.put_nowait(error)

        tasks = [asyncio.create_task(follow(*numbered)) for numbered in enumerate(self._steps)]
        try:
            unfinished = len(tasks)
            while unfinished:
                event = await events.get()
                if isinstance(event, EngineFailed):
                    raise event
                unfinished -= event[1].finish_reason is not None
                yield event
        finally:
            self.cancel()
            await end_all(*tasks)
