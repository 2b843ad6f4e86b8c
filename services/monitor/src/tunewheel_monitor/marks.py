"""How far each partition has been taken in, so that nothing is counted twice and nothing is skipped."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from tunewheel_contracts.topics import BY_NAME, TopicSpec
from tunewheel_runtime.service import Position

from tunewheel_monitor.log_ranges import LogRanges, Offsets, Take

CLOCK_SKEW = timedelta(minutes=10)
"""The log's timestamps come from producers; reading a little more than needed is harmless."""


class Marks:
    """Next offset per partition. ``groups``: the consumer group of every topic that is taken in."""

    def __init__(self, ranges: LogRanges, groups: Mapping[TopicSpec, str]) -> None:
        self._ranges = ranges
        self._groups = {topic.name: group for topic, group in groups.items()}
        self._next: dict[tuple[str, int], int] = {}

    async def catch_up(
        self, beginnings: Mapping[str, list[tuple[Offsets, datetime | None]]], take: Take
    ) -> None:
        """Hand ``take`` again what lies between where it is first needed and the committed offset, by topic.

        Each need names offsets for some partitions, and the time from which it needs the others.
        """
        for name, group in self._groups.items():
            topic = BY_NAME[name]
            committed = await self._ranges.committed(topic, group)
            starts = await self._starts(topic, beginnings.get(name, []), committed)
            await self._ranges.read(topic, starts, committed, take)
            self._next |= {(name, partition): offset for partition, offset in committed.items()}

    async def _starts(
        self, topic: TopicSpec, needs: list[tuple[Offsets, datetime | None]], committed: Offsets
    ) -> Offsets:
        starts: Offsets = {}
        for known, since in needs:
            if not committed.keys() <= known.keys():
                known = await self._ranges.at(topic, since and since - CLOCK_SKEW) | known
            for partition, offset in known.items():
                starts[partition] = min(offset, starts.get(partition, offset))
        return starts

    async def take_missing_before(self, position: Position, take: Take) -> None:
        """Hand ``take`` what lies between the mark and ``position``: another process had it meanwhile."""
        key = (position.topic, position.partition)
        expected = self._next.get(key, position.offset)
        if expected < position.offset:
            starts, ends = {position.partition: expected}, {position.partition: position.offset}
            await self._ranges.read(BY_NAME[position.topic], starts, ends, take)

    def is_new(self, position: Position) -> bool:
        return position.offset >= self._next.get((position.topic, position.partition), 0)

    def advance(self, position: Position) -> None:
        self._next[position.topic, position.partition] = position.offset + 1
