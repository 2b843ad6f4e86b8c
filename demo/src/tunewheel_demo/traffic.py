"""Simulates customers, who ask through the gateway, and experts, who rate its answers."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from tunewheel_runtime.retry import Backoff, retry

from tunewheel_demo.example import Ticket
from tunewheel_demo.gateway import GatewayClient, text_of

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


async def ask_all(
    gateway: GatewayClient, project: str, tickets: Sequence[Ticket], done: Callable[[int], None]
) -> list[Answered]:
    """Ask every ticket's question, and return the answers in the tickets' order. ``done`` is called with the
    number of answers so far."""
    slots, finished = asyncio.Semaphore(CONCURRENT), itertools.count(1)

    async def one(ticket: Ticket) -> Answered:
        async with slots:
            answered = await _ask(gateway, project, ticket)
        done(next(finished))
        return answered

    return list(await asyncio.gather(*(one(ticket) for ticket in tickets)))


async def keep_asking(
    gateway: GatewayClient,
    project: str,
    tickets: Sequence[Ticket],
    done: Callable[[int], None],
    heard: Callable[[Answered], Awaitable[None]] | None = None,
) -> None:
    """Ask the tickets' questions again and again until cancelled. ``heard`` is called with every answer."""
    slots, finished = asyncio.Semaphore(CONCURRENT), itertools.count(1)

    async def one(ticket: Ticket) -> None:
        try:
            answered = await _ask(gateway, project, ticket)
            if heard is not None:
                await heard(answered)
        finally:
            slots.release()
        done(next(finished))

    async with asyncio.TaskGroup() as group:
        for ticket in itertools.cycle(tickets):
            await slots.acquire()
            group.create_task(one(ticket))


async def rate(gateway: GatewayClient, project: str, answered: Answered, label_field: str) -> None:
    """Send the expert's thumb for one answer."""
    await retry(
        lambda: gateway.rate(
            project, answered.completion_id, answered.thumb(label_field), by=answered.ticket.expert
        ),
        PATIENT,
        what="sending feedback",
    )


async def _ask(gateway: GatewayClient, project: str, ticket: Ticket) -> Answered:
    completion = await retry(
        lambda: gateway.ask(project, ticket.question), PATIENT, what="asking the gateway"
    )
    return Answered(ticket, completion["id"], text_of(completion), completion["model"])
