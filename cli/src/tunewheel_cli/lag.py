"""How far each consumer group is behind the end of the log."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.topics import BY_NAME

from tunewheel_cli.connection import unreachable
from tunewheel_cli.reading import consumer


@dataclass(frozen=True, slots=True)
class GroupLag:
    group: str
    topic: str
    behind: int
    """Records after the committed offset."""


async def read_lag(options: Mapping[str, Any]) -> list[GroupLag]:
    """Return the lag of every group on every topic of ours, sorted by group.

    Raises:
        TransientError: no Kafka answers.
    """
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        groups = sorted({group[0] for group in await admin.list_consumer_groups()})
        committed = {group: await admin.list_consumer_group_offsets(group) for group in groups}
    except (KafkaError, OSError) as error:
        raise await unreachable(options, error) from error
    finally:
        await admin.close()
    ours = {tp for offsets in committed.values() for tp in offsets if tp.topic in BY_NAME}
    async with consumer(options) as client:
        ends = await client.end_offsets(list(ours)) if ours else {}
    behind: dict[tuple[str, str], int] = defaultdict(int)
    for group, offsets in committed.items():
        for tp, offset in offsets.items():
            if tp in ours:
                behind[group, tp.topic] += max(0, ends[tp] - max(offset.offset, 0))
    return [GroupLag(group, topic, count) for (group, topic), count in sorted(behind.items())]
