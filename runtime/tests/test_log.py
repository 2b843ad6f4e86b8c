"""What the reader of the log makes of fetches; reading a real log is an integration test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.topics import PROJECT_DECLARED as TOPIC
from tunewheel_runtime import log
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.log import Cursor, LogUnreadable, latest
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.view import LogReader


def record(turn: str, partition: int, offset: int, stamp: int, *, is_tombstone: bool = False) -> Undecoded:
    spec = {
        "project": "desk", "base_model": turn, "task": {"system_prompt": "Answer."},
        "criteria": [{"metric": "rouge_l", "minimum": 0.1}],
    }  # fmt: skip
    declared = ProjectDeclared.model_validate({"project": "desk", "spec": spec})
    sent = new_event(declared, source="/test").to_kafka()
    value = None if is_tombstone else sent.value
    return Undecoded(Position(TOPIC.name, partition, offset), sent.key, value, sent.headers, stamp)


@pytest.mark.parametrize(
    ("records", "newest"),
    [
        ([record("models/a", 0, 1, 90), record("models/b", 0, 2, 50)], "models/b"),  # a clock that is behind
        ([record("models/b", 1, 1, 90), record("models/a", 0, 2, 50)], "models/b"),  # a key that moved
        ([record("models/a", 0, 1, 90), record("gone", 0, 2, 50, is_tombstone=True)], None),
        ([record("gone", 1, 1, 90, is_tombstone=True), record("models/a", 0, 2, 50)], None),
    ],
)
async def test_the_newest_of_a_key_is_the_last_of_its_partition_and_the_latest_of_several_partitions(
    records: list[Undecoded], newest: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def read(*_: Any, **__: Any) -> AsyncIterator[list[Undecoded]]:
        for one in records:
            yield [one]

    monkeypatch.setattr(log, "read", read)
    found = await latest({}, TOPIC)
    assert [event.data.spec.base_model for event in found.values()] == ([newest] if newest else [])


async def test_a_replay_keeps_log_order_within_a_partition_and_time_order_between_partitions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    applied: list[str] = []
    reader = LogReader(
        ServiceSettings(),
        (TOPIC,),
        lambda event, _: applied.append(event.data.spec.base_model),
        failed=lambda error: None,
    )
    fetched = [
        record("models/1", 0, 1, 10), record("models/3", 0, 2, 90), record("models/4", 0, 3, 50),
        record("models/2", 1, 1, 60), record("models/5", 1, 2, 95),
    ]  # fmt: skip

    async def upto(*_: Any, **__: Any) -> AsyncIterator[list[Undecoded]]:
        yield fetched

    async def reached() -> dict[log.Place, int]:
        return {(TOPIC.name, 0): 4, (TOPIC.name, 1): 3}

    monkeypatch.setattr(reader._cursor, "upto", upto)
    monkeypatch.setattr(reader._cursor, "reached", reached)
    await reader._read_to({})
    assert applied == [f"models/{n}" for n in range(1, 6)]
    assert reader.upto(TOPIC) == {"0": 4, "1": 3}


async def test_a_bounded_read_fails_where_the_broker_delivers_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cursor = Cursor({}, [TOPIC.name])

    async def nothing(*_: Any, **__: Any) -> list[Undecoded]:
        return []

    async def reached() -> dict[log.Place, int]:
        return {(TOPIC.name, 0): 2}

    monkeypatch.setattr(cursor, "fetch", nothing)
    monkeypatch.setattr(cursor, "reached", reached)
    assert [one async for one in cursor.upto({(TOPIC.name, 0): 2}, patience=0.0)] == []
    with pytest.raises(LogUnreadable, match=r"project\.declared"):
        _ = [one async for one in cursor.upto({(TOPIC.name, 0): 3}, patience=0.0)]
