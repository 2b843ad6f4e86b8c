"""How far each consumer group is behind the end of the log."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.topics import BY_NAME

from tunewheel_cli.connection import unreachable
from tunewheel_cli.reading import consumer

GROUPS_AT_ONCE = 8
"""Asked for their offsets."""


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
        committed = await _committed(admin, groups)
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


async def _committed(admin: Any, groups: Sequence[str]) -> dict[str, Any]:
    """Return the committed offsets of each group; ``GROUPS_AT_ONCE`` groups are asked at a time."""
    places = asyncio.Semaphore(GROUPS_AT_ONCE)

    async def ask(group: str) -> Any:
        async with places:
            return await admin.list_consumer_group_offsets(group)

    return dict(zip(groups, await asyncio.gather(*map(ask, groups)), strict=True))
