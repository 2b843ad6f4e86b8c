"""A build that is asked for by hand waits until ingest has read what was published before."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from tunewheel_cli.lag import IngestBehind, settled
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_contracts.topics import TICKET_PUBLISHED

from .bus import Bus

pytestmark = pytest.mark.integration


async def test_a_build_waits_for_ingest_and_says_when_it_does_not_come(fresh_kafka: str) -> None:
    options = {"bootstrap_servers": fresh_kafka}
    left: list[int] = []
    await settled(options, patience_seconds=0, on_behind=left.append)
    assert left == []
    ticket = TicketPublished(project="shop", ticket_id="T-1", body="My bell is silent.")
    async with Bus(fresh_kafka) as bus:
        await bus.publish(*(new_event(ticket, source="/test") for _ in range(3)))
    with pytest.raises(IngestBehind, match=r"3 events behind.*--no-wait"):
        await settled(options, patience_seconds=0, on_behind=left.append)
    assert left == [3]
    await _as_ingest(fresh_kafka)
    await settled(options, patience_seconds=0, on_behind=left.append)
    assert left == [3]


async def _as_ingest(kafka: str) -> None:
    """Commit as ingest does once it has published the records."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, group_id="ingest.ticket-published", enable_auto_commit=False
    )
    await consumer.start()
    try:
        partitions = [TopicPartition(TICKET_PUBLISHED.name, n) for n in range(TICKET_PUBLISHED.partitions)]
        consumer.assign(partitions)
        await consumer.commit(await consumer.end_offsets(partitions))
    finally:
        await consumer.stop()
