"""Tunewheel's own Python client at the real door."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from tunewheel_client import AsyncClient, Away, Client, NotAllowed, Refused, batches
from tunewheel_contracts.events.upstream import ExamplePublished
from tunewheel_runtime.settings import HttpSettings
from tunewheel_testing.served import served

from .conftest import Log, make_app

NOWHERE = "http://127.0.0.1:1"


@pytest.fixture
def publisher(client: httpx.AsyncClient) -> AsyncClient:
    return AsyncClient(NOWHERE, "k", ingest="http://ingest", http=client)


def tickets(count: int) -> list[dict[str, Any]]:
    return [{"ticket_id": f"T-{n}", "body": f"bell {n}"} for n in range(count)]


async def test_items_of_all_kinds_are_published_each_on_its_topic(publisher: AsyncClient, log: Log) -> None:
    example = ExamplePublished(project="p", example_id="e", input="q", output={"a": 1})
    document = {"document_id": "a.md", "content": "text", "published_at": datetime(2026, 1, 1, tzinfo=UTC)}
    receipt = await publisher.publish("p", [*tickets(2), example, document])
    assert (receipt.accepted, receipt.refused) == (4, [])
    assert receipt.event_ids == [event.id for event in log.events]
    assert [event.data.type for event in log.events] == [
        "ticket.published", "ticket.published", "example.published", "document.published",
    ]  # fmt: skip
    assert log.events[2].data == example.model_copy(update={"authority": "expert"})


async def test_what_is_wrong_is_listed_by_its_place_and_the_rest_published(
    publisher: AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_ITEMS", 2)
    faulty = [{"ticket_id": "T-x"}, {"body": "whose?"}, {"ticket_id": "T-y", "body": float("nan")}]
    receipt = await publisher.publish("p", [*tickets(3), *faulty, *tickets(1)])
    assert [(one.index, one.field) for one in receipt.refused] == [(4, "(kind)"), (5, "(item)"), (3, "body")]
    assert receipt.accepted == len(log.events) == 4


async def test_answers_that_are_lowered_are_counted_over_all_requests(
    guarded: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "BATCH_ITEMS", 2)
    answered = [one | {"answer": "a", "validated_by": "eve"} for one in tickets(5)]
    for name, count in (("desk", 5), ("lead", None)):
        receipt = await AsyncClient(NOWHERE, name, ingest="http://ingest", http=guarded).publish(
            "p", answered
        )
        assert receipt.accepted == 5
        assert (receipt.lowered and (receipt.lowered.count, receipt.lowered.trust)) == (
            count and (count, "unverified")
        )


async def test_a_batch_of_which_nothing_is_right_is_told_and_not_raised(publisher: AsyncClient) -> None:
    receipt = await publisher.publish("q2", tickets(1))
    assert (receipt.accepted, [one.field for one in receipt.refused]) == (0, ["project"])


async def test_publishing_again_is_the_same_events_with_ids_or_without(
    publisher: AsyncClient, log: Log
) -> None:
    first, again = [
        await publisher.publish("p", [{"body": "bell"}, *tickets(1)], kind="ticket") for _ in range(2)
    ]
    assert first.event_ids == again.event_ids
    assert log.events[0].data.ticket_id.startswith("ticket-")


async def test_large_items_are_split_over_requests(publisher: AsyncClient, log: Log) -> None:
    long = [{"ticket_id": f"T-{n}", "body": "x" * 900_000} for n in range(6)]
    receipt = await publisher.publish("p", long)
    assert (receipt.accepted, receipt.refused) == (6, [])


async def test_a_file_is_published_with_what_is_said_of_it(
    publisher: AsyncClient, log: Log, tmp_path: Path
) -> None:
    file = tmp_path / "a.docx"
    file.write_bytes(b"PK-like")
    for content in (file, b"PK-like"):
        receipt = await publisher.publish_file(
            "p", content, "sop/a.docx", title="A", attributes={"team": "é"}, published_at=datetime(2026, 1, 1)
        )
        assert receipt.accepted == 1
    first, again = log.events
    assert first.id == again.id
    assert (first.data.document_id, first.data.title, first.data.attributes) == (
        "sop/a.docx",
        "A",
        {"team": "é"},
    )
    with pytest.raises(Refused) as error:
        await publisher.publish_file("p", b"?", "a.unknown")
    assert error.value.param == "media_type"


async def test_a_key_without_the_role_is_refused_in_both_ways(guarded: httpx.AsyncClient) -> None:
    for key in ("dpo", "nobody"):
        with pytest.raises(NotAllowed) as error:
            await AsyncClient(NOWHERE, key, ingest="http://ingest", http=guarded).publish("p", tickets(1))
        assert error.value.status == (403 if key == "dpo" else 401)
    elsewhere = AsyncClient(NOWHERE, "desk", ingest="http://ingest", http=guarded)
    receipt = await elsewhere.publish("p", [*tickets(1), {"ticket_id": "T", "body": "b", "project": "q"}])
    assert (receipt.accepted, [one.field for one in receipt.refused]) == (1, ["project"])


async def test_a_broker_that_comes_back_gets_the_items_once(
    publisher: AsyncClient, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewheel_client.aio.transport.LONGEST_WAIT_SECONDS", 0.0)
    log.refusals = 2
    receipt = await publisher.publish("p", tickets(3))
    assert receipt.accepted == len(log.events) == 3
    log.away = True
    with pytest.raises(Away, match="the broker is away"):
        await publisher.publish("p", tickets(3))


async def test_the_synchronous_client_publishes_over_a_socket(log: Log, store: Any) -> None:
    with (
        served(make_app(log, store, HttpSettings(identity="open"))) as url,
        Client(url, "k", ingest=url) as it,
    ):
        receipt = await asyncio.to_thread(it.publish, "p", tickets(3))
    assert receipt.accepted == len(log.events) == 3
