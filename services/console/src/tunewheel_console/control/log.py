"""What routes ask of the log beside the state: that it is read to its end, and that ingest has read it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

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


@dataclass(frozen=True, slots=True)
class Log:
    refresh: Callable[[], Awaitable[None]]
    """Reads the log to its current end. Raises ``TransientError``."""
    backlogs: Backlogs

    @classmethod
    def of(cls, settings: ServiceSettings, refresh: Callable[[], Awaitable[None]]) -> Self:
        options = client_options(settings)

        async def backlogs() -> list[Backlog]:
            reads = ((topic.name, *topic.groups_of("ingest")) for topic in RECORDS_FROM)
            return await asyncio.gather(*(group_backlog(options, name, group=group) for name, group in reads))

        return cls(refresh, backlogs)

    async def settled(self, patience_seconds: float) -> None:
        """Wait until ingest has made records of what is on the log now, so that a version has it.

        Raises:
            Refused: ingest was not done within ``patience_seconds``.
            TransientError: the broker does not answer.
        """
        loop = asyncio.get_running_loop()
        ends_at, now = loop.time() + patience_seconds, await self.backlogs()
        wanted = [one.ends for one in now]
        while behind := sum(_behind(one, ends) for one, ends in zip(now, wanted, strict=True)):
            if loop.time() >= ends_at:
                reason = (
                    f"is true, and ingest is {behind:,} events behind what was published; ask again later, "
                    "or send false to build from the records that there are"
                )
                raise Refused(HTTPStatus.CONFLICT, "wait", reason)
            await asyncio.sleep(POLL_SECONDS)
            now = await self.backlogs()


def _behind(backlog: Backlog, ends: Mapping[int, int]) -> int:
    return sum(max(0, end - backlog.kept.get(partition, 0)) for partition, end in ends.items())
