from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.partitioner import DefaultPartitioner
from tunewheel_runtime.partitions import (
    GROUPS_AT_ONCE,
    Backlog,
    Settled,
    backlog_of,
    handles,
    lag_of,
    partition_of,
    settled_of,
)


@pytest.mark.parametrize("key", ["desk", "shop", "a-long-name.of-a.project", "ä"])
def test_a_key_lies_where_the_producer_puts_it(key: str) -> None:
    partitions: Any = list(range(7))
    assert partition_of(key, 7) == DefaultPartitioner()(key.encode(), partitions, partitions)


def test_keys_of_other_partitions_and_of_no_topic_are_not_held() -> None:
    own = partition_of("desk", 3)
    assert Settled(3, frozenset({own})).holds("desk")
    assert not Settled(3, frozenset({(own + 1) % 3})).holds("desk")
    assert not Settled(0, frozenset()).holds("desk")


class Member:
    """A member of a group: partition → (end that it heard of, what is committed)."""

    def __init__(self, partitions: dict[int, tuple[int | None, int | None]]) -> None:
        self._partitions = partitions

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition("t", partition) for partition in self._partitions}

    def last_stable_offset(self, tp: TopicPartition) -> int | None:
        return self._partitions[tp.partition][0]

    async def committed(self, tp: TopicPartition) -> int | None:
        return self._partitions[tp.partition][1]

    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0, 1, 2, 3, 4}


async def test_partitions_that_wait_or_are_unknown_are_not_settled() -> None:
    member: Any = Member({0: (5, 5), 1: (5, 4), 2: (None, 5), 3: (0, None)})
    assert await settled_of(member, "t") == Settled(5, frozenset({0, 3}))


def test_projects_of_another_members_partition_are_not_handled_here() -> None:
    own = partition_of("desk", 5)
    here, elsewhere = Member({own: (5, 4)}), Member({(own + 1) % 5: (5, 5)})
    told: list[Any] = [here, elsewhere]
    assert [handles(member, "t", "desk") for member in told] == [True, False]


class Group:
    """A member of a group that asks of others' partitions too: partition → (begin, end, committed)."""

    def __init__(self, partitions: dict[int, tuple[int, int, int | None]]) -> None:
        self._partitions = partitions

    def assignment(self) -> set[TopicPartition]:
        return {TopicPartition("t", number) for number in self._partitions}

    def last_stable_offset(self, tp: TopicPartition) -> int | None:
        return self._partitions[tp.partition][1]

    async def beginning_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self._partitions[tp.partition][0] for tp in partitions}

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        return {tp: self._partitions[tp.partition][1] for tp in partitions}

    async def committed(self, tp: TopicPartition) -> int | None:
        return self._partitions[tp.partition][2]


async def test_a_group_has_dealt_with_what_it_committed_and_what_is_no_longer_there() -> None:
    group: Any = Group({0: (0, 5, 5), 1: (7, 7, None), 2: (0, 9, 8)})
    found = await backlog_of(group, [TopicPartition("t", n) for n in range(3)])
    assert found == Backlog({0: 5, 1: 7, 2: 9}, {0: 5, 1: 7, 2: 8})
    assert not found.has_kept(found.ends)
    assert found.has_kept({0: 5, 1: 7, 2: 8})


class Quiet(Group):
    """A member that counts how often it was ``asked``."""

    asked = 0

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        self.asked += 1
        return await super().end_offsets(partitions)


async def test_a_group_that_has_caught_up_is_asked_again_only_after_the_next_record() -> None:
    members: Any = {("g", "t"): (quiet := Quiet({0: (0, 5, 5), 1: (0, 0, None)}))}
    caught_up: Any = {}
    for _ in range(3):
        assert await lag_of(members, caught_up) == {("g", "t", "0"): 0, ("g", "t", "1"): 0}
    assert quiet.asked == 1
    quiet._partitions[1] = (0, 1, None)
    for asked in (2, 3):
        assert (await lag_of(members, caught_up))["g", "t", "1"] == 1
        assert quiet.asked == asked
    quiet._partitions[1] = (0, 1, 1)
    assert (await lag_of(members, caught_up))["g", "t", "1"] == 0


class Held(Group):
    """A member whose broker answers once ``enough`` members were asked; ``asked`` counts those."""

    def __init__(self, asked: list[int], enough: asyncio.Event) -> None:
        super().__init__({0: (0, 9, 7), 1: (3, 3, None)})
        self._asked, self._enough = asked, enough

    async def end_offsets(self, partitions: list[TopicPartition]) -> dict[TopicPartition, int]:
        self._asked[0] += 1
        if self._asked[0] == GROUPS_AT_ONCE:
            self._enough.set()
        await self._enough.wait()
        return await super().end_offsets(partitions)


async def test_several_groups_are_asked_at_once_and_no_more_than_so_many() -> None:
    asked, enough = [0], asyncio.Event()
    members: Any = {(f"g{number}", "t"): Held(asked, enough) for number in range(GROUPS_AT_ONCE + 3)}
    members["idle", "t"] = Member({})
    measured = asyncio.create_task(lag_of(members, {}))
    async with asyncio.timeout(60):
        await enough.wait()
    assert asked == [GROUPS_AT_ONCE]
    lag = await measured
    assert len(lag) == 2 * (GROUPS_AT_ONCE + 3)
    assert (lag["g0", "t", "0"], lag["g0", "t", "1"]) == (2, 0)
