"""Waits until ingest has made records of everything published so far, so that a build includes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.topics import (
    DOCUMENT_PUBLISHED,
    EXAMPLE_PUBLISHED,
    FEEDBACK_RECEIVED,
    TICKET_PUBLISHED,
)

from tunewheel_cli.connection import unreachable
from tunewheel_cli.reading import consumer

if TYPE_CHECKING:
    from aiokafka import TopicPartition
    from aiokafka.admin import AIOKafkaAdminClient

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
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError
    from tunewheel_runtime.partitions import partitions_of

    async with consumer(options) as client:
        partitions = await partitions_of(options, [topic.name for topic in RECORDS_FROM])
        ends = await client.end_offsets(partitions) if partitions else {}
        starts = await client.beginning_offsets(partitions) if partitions else {}
    wanted = {tp: end for tp, end in ends.items() if end > starts[tp]}
    admin = AIOKafkaAdminClient(**options)
    deadline = time.monotonic() + patience_seconds
    try:
        await admin.start()
        while behind := await _behind(admin, wanted):
            on_behind(behind)
            if time.monotonic() >= deadline:
                raise IngestBehind(
                    f"ingest is {behind:,} events behind what was published: is it running (`tunewheel "
                    "status`)? Wait and ask again, or ask for what there is with --no-wait"
                )
            await asyncio.sleep(POLL_SECONDS)
    except (KafkaError, OSError) as error:
        raise await unreachable(options, error) from error
    finally:
        await admin.close()


async def _behind(admin: AIOKafkaAdminClient, wanted: Mapping[TopicPartition, int]) -> int:
    from aiokafka import errors

    # A broker that never had a group creates the topic of groups at the first request.
    not_yet = (
        errors.GroupCoordinatorNotAvailableError,
        errors.GroupLoadInProgressError,
        errors.NotCoordinatorForGroupError,
    )
    reached: dict[TopicPartition, int] = {}
    for topic in {tp.topic for tp in wanted}:
        try:
            committed = await admin.list_consumer_group_offsets(f"ingest.{topic.replace('.', '-')}")
        except not_yet:
            continue
        reached |= {tp: offset.offset for tp, offset in committed.items()}
    return sum(max(0, end - max(reached.get(tp, 0), 0)) for tp, end in wanted.items())
