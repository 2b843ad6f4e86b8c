"""Waits until ingest has made records of everything that was published so far, so that a build has it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from tunewheel_contracts.topics import (
    DOCUMENT_PUBLISHED,
    EXAMPLE_PUBLISHED,
    FEEDBACK_RECEIVED,
    TICKET_PUBLISHED,
)
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.partitions import Backlog, group_backlog
from tunewheel_runtime.settings import ServiceSettings

from tunewheel_console.refusals import Refused

RECORDS_FROM = (TICKET_PUBLISHED, DOCUMENT_PUBLISHED, EXAMPLE_PUBLISHED, FEEDBACK_RECEIVED)
"""The topics from which ingest makes records."""
POLL_SECONDS = 0.5
Backlogs = Callable[[], Awaitable[list[Backlog]]]
"""Returns how far ingest has read each of ``RECORDS_FROM``, always in this order."""


async def settled(backlogs: Backlogs, patience_seconds: float) -> None:
    """Wait until ingest has read what is on the log now.

    Raises:
        Refused: ingest was not done within ``patience_seconds``.
        TransientError: the broker does not answer.
    """
    loop = asyncio.get_running_loop()
    ends_at, now = loop.time() + patience_seconds, await backlogs()
    wanted = [one.ends for one in now]
    while behind := sum(_behind(one, ends) for one, ends in zip(now, wanted, strict=True)):
        if loop.time() >= ends_at:
            reason = (
                f"is true, and ingest is {behind:,} events behind what was published; ask again later, or "
                "send false to build from the records that there are"
            )
            raise Refused(HTTPStatus.CONFLICT, "wait", reason)
        await asyncio.sleep(POLL_SECONDS)
        now = await backlogs()


def settled_by(settings: ServiceSettings) -> Callable[[float], Awaitable[None]]:
    """Return a function that waits for ingest so many seconds at most; see ``settled``."""
    options = client_options(settings)

    async def backlogs() -> list[Backlog]:
        reads = ((topic.name, *topic.groups_of("ingest")) for topic in RECORDS_FROM)
        return await asyncio.gather(*(group_backlog(options, name, group=group) for name, group in reads))

    return lambda patience_seconds: settled(backlogs, patience_seconds)


def _behind(backlog: Backlog, ends: Mapping[int, int]) -> int:
    return sum(max(0, end - backlog.kept.get(partition, 0)) for partition, end in ends.items())
