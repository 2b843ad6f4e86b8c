"""Finds how many records are on the log and not yet in the table, over all replicas."""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.topics import RECORD_INGESTED
from tunewheel_runtime.kafka import client_options, make_consumer, stop_consumer
from tunewheel_runtime.partitions import Backlog, all_partitions_of, backlog_of
from tunewheel_runtime.settings import ServiceSettings

GROUP = "curate.record-ingested"
"""The consumer group of the replicas. It commits an offset once the record is in the table or a dead
letter."""
ReadBacklog = Callable[[], Awaitable[Backlog]]


async def read_backlog(settings: ServiceSettings) -> Backlog:
    """Ask the broker.

    Raises:
        TransientError: the broker does not answer.
    """
    options = client_options(settings)
    consumer = make_consumer(options, group_id=GROUP)
    try:
        await consumer.start()
        partitions = await all_partitions_of(options, [RECORD_INGESTED.name])
        consumer.assign(partitions)  # without joining the group
        return await backlog_of(consumer, partitions)
    except KafkaError as error:
        raise TransientError(f"cannot tell how far {RECORD_INGESTED.name} is read: {error}") from error
    finally:
        await stop_consumer(consumer)
