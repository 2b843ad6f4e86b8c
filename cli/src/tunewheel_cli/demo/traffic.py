"""Customers: the second wave, sent through the gateway, and the experts who correct the answers."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence

from tunewheel_runtime.retry import Backoff, retry

from tunewheel_cli.demo.example import Ticket
from tunewheel_cli.demo.gateway import GatewayClient

CONCURRENT = 12
PATIENT = Backoff(attempts=40, first=0.2, longest=3.0)


async def send_wave(
    gateway: GatewayClient, project: str, tickets: Sequence[Ticket], done: Callable[[int], None]
) -> int:
    """Ask every ticket's question and correct every answer; return how many corrections were sent.

    ``done`` is told how many tickets have been through.
    """
    slots, finished = asyncio.Semaphore(CONCURRENT), itertools.count(1)

    async def one(ticket: Ticket) -> None:
        async with slots:
            completion = await retry(
                lambda: gateway.ask(project, ticket.question), PATIENT, what="asking the gateway"
            )
            await retry(
                lambda: gateway.correct(project, completion["id"], ticket.answer, by=ticket.expert),
                PATIENT,
                what="sending feedback",
            )
        done(next(finished))

    await asyncio.gather(*(one(ticket) for ticket in tickets))
    return len(tickets)


async def keep_asking(
    gateway: GatewayClient, project: str, questions: Sequence[str], done: Callable[[int], None]
) -> None:
    """Ask ``questions`` over and over, until cancelled."""
    slots, finished = asyncio.Semaphore(CONCURRENT), itertools.count(1)

    async def one(question: str) -> None:
        try:
            await retry(lambda: gateway.ask(project, question), PATIENT, what="asking the gateway")
        finally:
            slots.release()
        done(next(finished))

    async with asyncio.TaskGroup() as group:
        for question in itertools.cycle(questions):
            await slots.acquire()
            group.create_task(one(question))
