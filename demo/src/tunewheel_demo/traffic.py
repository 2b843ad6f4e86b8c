"""Simulates customers, who ask through the gateway, and experts, who rate its answers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tunewheel_client import Answer, AsyncClient, NotFound
from tunewheel_runtime.retry import Backoff, retry

from tunewheel_demo.example import Ticket

CONCURRENT = 12
PATIENT = Backoff(attempts=40, first=0.2, longest=3.0)


@dataclass(frozen=True, slots=True)
class Answered:
    """A ticket, and production's answer to its question."""

    ticket: Ticket
    completion_id: str
    text: str
    model: str
    """The model that answered."""

    def thumb(self, label_field: str) -> Literal["up", "down"]:
        """Return the expert's thumb: up if the answer's label equals the label of the expert's answer."""
        try:
            said = json.loads(self.text)
        except ValueError:
            return "down"
        right = self.ticket.answer[label_field]
        return "up" if isinstance(said, dict) and said.get(label_field) == right else "down"


async def ask(client: AsyncClient, project: str, question: str, *, model: str | None = None) -> Answer:
    """Return the answer. Decoding is greedy, so that a second demo shows the same answers."""
    return await client.ask(project, question, model=model, temperature=0, max_tokens=64)


async def until_served(client: AsyncClient, project: str, model: str, *, patience: float) -> None:
    """Wait until ``model`` can be asked: its adapter is then loaded.

    Raises:
        TimeoutError: it still cannot after ``patience`` seconds.
    """
    async with asyncio.timeout(patience):
        while True:
            with contextlib.suppress(NotFound):
                await client.ask(project, "Is anybody there?", model=model, max_tokens=1)
                return
            await asyncio.sleep(0.1)


async def ask_all(
    client: AsyncClient, project: str, tickets: Sequence[Ticket], done: Callable[[int], None]
) -> list[Answered]:
    """Ask every ticket's question, and return the answers in the tickets' order. ``done`` is called with the
    number of answers so far."""
    slots, finished = asyncio.Semaphore(CONCURRENT), itertools.count(1)

    async def one(ticket: Ticket) -> Answered:
        async with slots:
            answered = await _ask(client, project, ticket)
        done(next(finished))
        return answered

    return list(await asyncio.gather(*(one(ticket) for ticket in tickets)))


async def keep_asking(
    client: AsyncClient,
    project: str,
    tickets: Sequence[Ticket],
    done: Callable[[int], None],
    heard: Callable[[Answered], Awaitable[None]] | None = None,
) -> None:
    """Ask the tickets' questions again and again until cancelled. ``heard`` is called with every answer."""
    slots, finished = asyncio.Semaphore(CONCURRENT), itertools.count(1)

    async def one(ticket: Ticket) -> None:
        try:
            answered = await _ask(client, project, ticket)
            if heard is not None:
                await heard(answered)
        finally:
            slots.release()
        done(next(finished))

    async with asyncio.TaskGroup() as group:
        for ticket in itertools.cycle(tickets):
            await slots.acquire()
            group.create_task(one(ticket))


async def rate(client: AsyncClient, answered: Answered, label_field: str) -> None:
    """Send the expert's thumb for one answer."""
    await retry(
        lambda: client.feedback(
            answered.completion_id, answered.thumb(label_field), submitted_by=answered.ticket.expert
        ),
        PATIENT,
        what="sending feedback",
    )


async def _ask(client: AsyncClient, project: str, ticket: Ticket) -> Answered:
    said = await retry(lambda: ask(client, project, ticket.question), PATIENT, what="asking the gateway")
    return Answered(ticket, said.completion_id, said.text, said.model)
