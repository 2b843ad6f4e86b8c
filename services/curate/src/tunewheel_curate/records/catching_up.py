"""Appends to the record table, at every start, the records of the log that it lacks.

The consumer group's offsets only say which records were handled once. A table that was deleted or restored
from a backup lacks some of them, and the group would not deliver them again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaError
from tunewheel_contracts.erasures import Erasure
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.data import RecordIngested
from tunewheel_contracts.topics import RECORD_INGESTED
from tunewheel_runtime.kafka import client_options, make_consumer, stop_consumer
from tunewheel_runtime.service import Delivery, Position
from tunewheel_runtime.settings import ServiceSettings

from tunewheel_curate.records.arrivals import rows_of
from tunewheel_curate.records.missing import MissingRecords
from tunewheel_curate.records.table import RecordTable

log = structlog.get_logger(__name__)


async def catch_up(
    table: RecordTable,
    settings: ServiceSettings,
    *,
    missing: MissingRecords,
    erasures: Callable[[], Sequence[Erasure]],
) -> int:
    """Append every record of the log that is neither in the table nor erased; return how many. Records that
    the log no longer holds are noted in ``missing``.

    Raises:
        TransientError: the broker or the store is away.
        ForeignRecordTable: see ``RecordTable.append``.
    """
    # A consumer without a group reads every partition.
    consumer = make_consumer(client_options(settings), RECORD_INGESTED.name)
    new = 0
    try:
        await consumer.start()
        partitions = sorted(consumer.assignment())
        ends = await consumer.end_offsets(partitions)
        reached = {p: await asyncio.to_thread(table.reached, p.partition) for p in partitions}
        begins = await consumer.beginning_offsets(partitions)
        await missing.compare(
            begins={p.partition: begin for p, begin in begins.items()},
            reached={p.partition: offset for p, offset in reached.items()},
        )
        behind = [p for p in partitions if reached[p] < ends[p]]
        for partition in partitions:
            consumer.seek(partition, min(reached[partition], ends[partition]))
        while behind:
            batches = await consumer.getmany(*behind, timeout_ms=500)
            records = [record for batch in batches.values() for record in batch]
            rows = rows_of(_readable(records))
            new += await asyncio.to_thread(table.append, rows, erasures=erasures())
            behind = [p for p in behind if await consumer.position(p) < ends[p]]
    except KafkaError as error:
        raise TransientError(f"cannot read {RECORD_INGESTED.name}: {error}") from error
    finally:
        await stop_consumer(consumer)
    if new:
        log.info("records_caught_up", new=new)
    return new


def _readable(records: Sequence[ConsumerRecord[bytes, bytes]]) -> list[Delivery[RecordIngested]]:
    """Decode the valid records. The others become dead letters when they are delivered."""
    deliveries: list[Delivery[RecordIngested]] = []
    for record in records:
        try:
            headers = dict(record.headers)
            event = Envelope.from_kafka(RecordIngested, record.value, headers, logged_ms=record.timestamp)
        except InvalidEvent:
            continue
        deliveries.append(Delivery(event, Position(record.topic, record.partition, record.offset), headers))
    return deliveries
