"""How a question to the log ends while the broker says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from tunewheel_contracts import topics
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime import log, record_search
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.record_search import RecordSearch

PARTITION = TopicPartition("inference.completed", 0)
LONG_AGO = datetime(2026, 5, 1, tzinfo=UTC)
PATIENT = 10_000
"""Looks after which a test gives up."""


class Admin:
    def __init__(self, **_: Any) -> None: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


class Consumer:
    """Reads a log of three records as aiokafka's does: while the broker is away it finds none."""

    made: list[Consumer]
    away = True
    _fetcher = None

    def __init__(self, **_: Any) -> None:
        self.looks, self.at, self.stopped = 0, 0, False
        self._client = SimpleNamespace(close=lambda: asyncio.sleep(0))
        self.made.append(self)

    async def start(self) -> None: ...

    async def stop(self) -> None:
        self.stopped = True

    def assign(self, partitions: Sequence[TopicPartition]) -> None: ...

    def assignment(self) -> set[TopicPartition]:
        return {PARTITION}

    async def beginning_offsets(self, _: Any) -> dict[TopicPartition, int]:
        return {PARTITION: 0}

    async def offsets_for_times(self, _: Any) -> dict[TopicPartition, Any]:
        return {PARTITION: SimpleNamespace(offset=0)}

    async def end_offsets(self, _: Any) -> dict[TopicPartition, int]:
        return {PARTITION: 3}

    async def position(self, _: TopicPartition) -> int:
        return self.at

    def seek(self, _: TopicPartition, offset: int) -> None:
        self.at = offset

    def pause(self, *_: TopicPartition) -> None: ...

    async def getmany(self, **_: Any) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0)
        self.looks += 1
        assert self.looks < PATIENT, "it looks for ever"
        if self.away:
            return {}
        self.at = 3
        return {PARTITION: [ConsumerRecord(*PARTITION, 0, 0, 0, b"c-1", b"", None, 0, 0, ())] * 3}


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> type[Consumer]:
    async def partitions(*_: Any, **__: Any) -> list[TopicPartition]:
        return [PARTITION]

    monkeypatch.setattr(Consumer, "made", [], raising=False)
    monkeypatch.setattr(Consumer, "away", True)
    monkeypatch.setattr(log, "AIOKafkaAdminClient", Admin)
    monkeypatch.setattr(log, "make_consumer", lambda *_, **__: Consumer())
    monkeypatch.setattr(log, "find_partitions", partitions)
    return Consumer


@pytest.fixture
def search() -> RecordSearch:
    return RecordSearch(KafkaSettings(), topics.INFERENCE_COMPLETED)


async def test_a_silent_broker_is_told_and_the_next_question_is_answered_over_a_new_connection(
    consumers: type[Consumer], search: RecordSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hurried:
        hurried.setattr(record_search, "LONGEST_SECONDS", 0.0)
        with pytest.raises(TransientError, match=r"inference\.completed"):
            await search.find("c-1", LONG_AGO)
    monkeypatch.setattr(consumers, "away", False)
    assert await search.find("c-2", LONG_AGO) is None
    assert [one.stopped for one in consumers.made] == [True, False]


async def test_a_search_that_waits_too_long_for_another_fails_and_does_not_end_it(
    consumers: type[Consumer], search: RecordSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_search, "LONGEST_SECONDS", 0.0)
    async with search._one_at_a_time:
        with pytest.raises(TransientError, match="earlier searches still run"):
            await search.find("c-1", LONG_AGO)
    assert consumers.made == []


async def test_a_search_that_ran_out_of_time_goes_on_where_it_stopped(
    consumers: type[Consumer], search: RecordSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = list[int]()

    async def getmany(self: Consumer, **_: Any) -> dict[TopicPartition, list[Any]]:
        await asyncio.sleep(0)
        if self.looks:
            raise TimeoutError
        begun.append(self.at)
        self.looks, self.at = 1, self.at + 1
        return {PARTITION: [ConsumerRecord(*PARTITION, 0, 0, 0, b"other", b"", None, 0, 0, ())] * 30_000}

    monkeypatch.setattr(Consumer, "getmany", getmany)
    for _ in range(2):
        with pytest.raises(TransientError):
            await search.find("c-1", LONG_AGO)
    with pytest.raises(TransientError):
        await search.find("c-2", LONG_AGO)
    assert await search.find("c-1", LONG_AGO) is None
    assert begun == [0, 1, 0, 2]
