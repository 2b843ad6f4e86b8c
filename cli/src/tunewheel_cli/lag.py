"""Waits until ingest has made records of everything published so far, so that a build includes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.topics import (
    DOCUMENT_PUBLISHED,
    EXAMPLE_PUBLISHED,
    FEEDBACK_RECEIVED,
    TICKET_PUBLISHED,
)
from tunewheel_local.connection import unreachable
from tunewheel_runtime.cluster import admin_client

from tunewheel_cli.reading import reachable

POLL_SECONDS = 0.2
RECORDS_FROM = (TICKET_PUBLISHED, DOCUMENT_PUBLISHED, EXAMPLE_PUBLISHED, FEEDBACK_RECEIVED)
"""The topics from which ingest makes records."""


class IngestBehind(TunewheelError):
    """Ingest has not read everything that was published."""


async def settled(
    options: Mapping[str, Any], *, patience_seconds: float, on_behind: Callable[[int], None]
) -> None:
    """Wait until ingest has read the log up to its current end. ``on_behind`` is called with the number of
    events left.

    Raises:
        IngestBehind: ingest was not done within ``patience_seconds``.
        TransientError: no Kafka answers.
    """
    from tunewheel_runtime.log import ends

    async with reachable(options):
        spans = await ends(options, [topic.name for topic in RECORDS_FROM], missing_ok=True)
    wanted = {tp: span.end for tp, span in spans.items() if span.end > span.begin}
    deadline = time.monotonic() + patience_seconds
    async with admin_client(options, explain=unreachable) as admin:
        while behind := await _ingest_behind(admin, wanted):
            on_behind(behind)
            if time.monotonic() >= deadline:
                raise IngestBehind(
                    f"ingest is {behind:,} events behind what was published: is it running (`tunewheel "
                    "status`)? Wait and ask again, or ask for what there is with --no-wait"
                )
            await asyncio.sleep(POLL_SECONDS)


async def _ingest_behind(admin: Any, wanted: Mapping[tuple[str, int], int]) -> int:
    from aiokafka import errors

    # A broker that never had a group creates the topic of groups at the first request.
    not_yet = (
        errors.GroupCoordinatorNotAvailableError,
        errors.GroupLoadInProgressError,
        errors.NotCoordinatorForGroupError,
    )
    reached: dict[tuple[str, int], int] = {}
    for topic in {topic for topic, _ in wanted}:
        try:
            committed = await admin.list_consumer_group_offsets(f"ingest.{topic.replace('.', '-')}")
        except not_yet:
            continue
        reached |= {tp: offset.offset for tp, offset in committed.items()}
    return sum(max(0, end - max(reached.get(tp, 0), 0)) for tp, end in wanted.items())
