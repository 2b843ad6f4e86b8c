"""Reads single events of a topic by their position on the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime.kafka import client_options, make_consumer, stop_consumer
from tunewheel_runtime.settings import ServiceSettings

Place = tuple[int, int]
"""Partition and offset."""
PATIENCE_MS = 2_000
"""How long to wait for one event. If it does not come, its retention is over."""


class LogPositions:
    """Reads without a consumer group. Every call opens its own consumer, since alarms are rare."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings

    async def read(self, topic: TopicSpec, places: Sequence[Place]) -> dict[Place, Envelope[Any]]:
        """Return the events at ``places``. Events that were deleted or cannot be decoded are left out.

        Raises:
            TransientError: the broker cannot be reached.
        """
        if not places:
            return {}
        consumer = make_consumer(client_options(self._settings), fetch_max_wait_ms=100)
        try:
            await consumer.start()
            return await self._read(consumer, topic, sorted(set(places)))
        except (KafkaError, OSError) as error:
            raise TransientError(f"cannot read {topic.name}: {error!r}") from error
        finally:
            await stop_consumer(consumer)

    async def _read(
        self, consumer: AIOKafkaConsumer, topic: TopicSpec, places: Sequence[Place]
    ) -> dict[Place, Envelope[Any]]:
        partitions = {partition: TopicPartition(topic.name, partition) for partition, _ in places}
        consumer.assign(list(partitions.values()))
        begins = await consumer.beginning_offsets(list(partitions.values()))
        ends = await consumer.end_offsets(list(partitions.values()))
        found: dict[Place, Envelope[Any]] = {}
        for partition, offset in places:
            tp = partitions[partition]
            if not begins[tp] <= offset < ends[tp]:
                continue
            consumer.seek(tp, offset)
            for record in (await consumer.getmany(tp, timeout_ms=PATIENCE_MS, max_records=1)).get(tp, ()):
                event = _decoded(topic, record) if record.offset == offset else None
                if event is not None:
                    found[partition, offset] = event
        return found


def _decoded(topic: TopicSpec, record: Any) -> Envelope[Any] | None:
    headers = {name: value or b"" for name, value in record.headers}
    try:
        return Envelope.from_kafka(topic.event, record.value, headers, logged_ms=record.timestamp)
    except InvalidEvent:
        return None
