"""What is read again at a start: every partition that the group committed, the spec's or not."""

from __future__ import annotations

from typing import Any

from tunewheel_contracts import topics
from tunewheel_contracts.topics import TopicSpec
from tunewheel_monitor.handlers import GROUPS
from tunewheel_monitor.marks import Marks

from .conftest import START, Broker

TOPIC: TopicSpec = topics.INFERENCE_COMPLETED


class Log(Broker):
    """A log whose partitions begin at 100."""

    def __init__(self) -> None:
        super().__init__()
        self.ranges: list[tuple[dict[int, int], dict[int, int]]] = []

    async def at(self, topic: TopicSpec, when: Any) -> dict[int, int]:
        return dict.fromkeys(range(TOPIC.partitions + 1), 100)

    async def read(self, topic: TopicSpec, starts: Any, ends: Any, take: Any) -> None:
        if topic == TOPIC:
            self.ranges.append((dict(starts), dict(ends)))


async def take(delivery: Any) -> None:
    raise AssertionError(delivery)


async def test_a_partition_that_was_added_after_the_window_is_read_from_when_it_is_needed() -> None:
    log, added = Log(), TOPIC.partitions
    frontier = dict.fromkeys(range(added), 250)
    log.offsets[TOPIC.name] = dict.fromkeys(range(added + 1), 300)
    await Marks(log, GROUPS).catch_up({TOPIC.name: [(frontier, START)]}, take)  # type: ignore[arg-type]
    assert log.ranges == [(frontier | {added: 100}, dict.fromkeys(range(added + 1), 300))]
