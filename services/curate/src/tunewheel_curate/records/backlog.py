"""Records that are on the log and not in the table yet, whichever replica is to append them."""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.topics import RECORD_INGESTED
from tunewheel_runtime.kafka import client_options, stop_consumer
from tunewheel_runtime.partitions import all_partitions_of
from tunewheel_runtime.settings import ServiceSettings

GROUP = "curate.record-ingested"
"""The consumer group of the replicas: it commits what is in the table, or a dead letter."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """By partition: where the log ends, and up to where it was dealt with."""

    ends: Mapping[int, int]
    kept: Mapping[int, int]

    def has_kept(self, upto: Mapping[int, int]) -> bool:
        """Tell whether everything before ``upto`` was dealt with."""
        return all(self.kept.get(partition, 0) >= end for partition, end in upto.items())


ReadBacklog = Callable[[], Awaitable[Backlog]]


async def read_backlog(settings: ServiceSettings) -> Backlog:
    """Ask the broker.

    Raises:
        TransientError: it does not answer.
    """
    options = client_options(settings)
    consumer = AIOKafkaConsumer(**options, group_id=GROUP, enable_auto_commit=False)
    try:
        await consumer.start()
        partitions = await all_partitions_of(options, [RECORD_INGESTED.name])
        consumer.assign(partitions)  # without joining the group
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        # Where nothing was ever consumed nothing is committed, be it that there is nothing left to consume.
        kept = {p.partition: max(begins[p], await consumer.committed(p) or 0) for p in partitions}
    except KafkaError as error:
        raise TransientError(f"cannot tell how far {RECORD_INGESTED.name} is read: {error}") from error
    finally:
        await stop_consumer(consumer)
    return Backlog({p.partition: end for p, end in ends.items()}, kept)
