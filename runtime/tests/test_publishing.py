"""A publish ends, whatever becomes of the broker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import NodeNotReadyError
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import KafkaRecord
from tunewheel_runtime.publishing import Publisher, Tombstone
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.telemetry import make_telemetry

RECORD = KafkaRecord("ticket.published", b"T-1", b"{}", {})


class Away:
    """Stands where the producer does after the broker went: takes records, acknowledges none, for ever."""

    def __init__(self) -> None:
        self.client = self
        self.closed = False
        self.pending: list[asyncio.Future[None]] = []

    async def send(self, *_: Any, **__: Any) -> asyncio.Future[None]:
        self.pending.append(asyncio.get_running_loop().create_future())
        return self.pending[-1]

    async def stop(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def away(monkeypatch: pytest.MonkeyPatch) -> tuple[Publisher, Away]:
    publisher, away = Publisher(ServiceSettings(publish_seconds=0.01), make_telemetry("test", None)), Away()
    monkeypatch.setattr(publisher, "_producer", away)
    return publisher, away


async def test_a_missing_acknowledgement_is_a_transient_error(
    away: tuple[Publisher, Away],
) -> None:
    publisher, producer = away
    with pytest.raises(TransientError, match=r"did not acknowledge within 0.01 s; send it again"):
        await publisher.send([RECORD, RECORD])
    assert len(producer.pending) == 2
    assert all(future.cancelled() for future in producer.pending), "nobody would look at their errors"


async def test_a_tombstone_has_no_value(
    away: tuple[Publisher, Away], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, producer = away
    sent: list[tuple[Any, ...]] = []

    async def send(*record: Any, key: bytes) -> asyncio.Future[None]:
        sent.append((*record, key))
        acknowledged = asyncio.get_running_loop().create_future()
        acknowledged.set_result(None)
        return acknowledged

    monkeypatch.setattr(producer, "send", send)
    await publisher.send([Tombstone("index.versioned", b"shop")])
    assert sent == [("index.versioned", None, b"shop")]


async def test_a_stop_in_an_outage_ends(away: tuple[Publisher, Away]) -> None:
    publisher, producer = away
    await publisher.stop()
    assert producer.closed
    await publisher.stop()


async def test_a_broker_that_answers_is_found_among_those_that_do_not(
    away: tuple[Publisher, Away], monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher, producer = away
    asked: list[int] = []

    class Client:
        cluster = SimpleNamespace(brokers=lambda: [SimpleNamespace(nodeId=n) for n in range(3)])
        alive: int | None = 1

        async def send(self, node: int, request: Any) -> None:
            asked.append(node)
            if node != self.alive:
                raise NodeNotReadyError

    monkeypatch.setattr(producer, "client", Client(), raising=False)
    for _ in range(10):
        await publisher.reach()
        assert asked.pop() == 1
    monkeypatch.setattr(Client, "alive", None)
    asked.clear()
    with pytest.raises(TransientError, match="no broker answers"):
        await publisher.reach()
    assert sorted(asked) == [0, 1, 2]
    with pytest.raises(TransientError, match="not connected yet"):
        await Publisher(ServiceSettings(), make_telemetry("test", None)).reach()
