"""Upstream systems that write in transactions: what they abort is no event, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import ProjectDeclared, TicketPublished
from tunewheel_ingest.main import make_app
from tunewheel_ingest.settings import Settings
from tunewheel_runtime import record_search
from tunewheel_runtime.record_search import RecordSearch
from tunewheel_runtime.service import Service
from tunewheel_testing.reading import read_topics
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, Bus, running, until

pytestmark = pytest.mark.integration


def ticket(project: str, name: str) -> Envelope[TicketPublished]:
    data = TicketPublished(project=project, ticket_id=name, body="The bell is broken.", answer="We mend it.")
    return new_event(data, source="/test")


@pytest.fixture
async def upstream(kafka: str, project: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=project)
    await producer.start()
    yield producer
    await producer.stop()


async def write(producer: AIOKafkaProducer, *events: Envelope, abort: bool) -> None:
    """Write ``events`` in one transaction."""
    await producer.begin_transaction()
    for event in events:
        record = event.to_kafka()
        await producer.send_and_wait(
            record.topic, record.value, key=record.key, headers=list(record.headers.items())
        )
    await (producer.abort_transaction() if abort else producer.commit_transaction())


@pytest.fixture
def ingest(kafka: str, tmp_path: Path) -> Service:
    made = Settings(bootstrap_servers=kafka, store_url=(tmp_path / "store").as_uri(), http_port=0)
    return make_app(made)


async def test_an_aborted_ticket_makes_no_record_and_keeps_no_group_waiting(
    kafka: str, project: str, ingest: Service, upstream: AIOKafkaProducer
) -> None:
    async with Bus(kafka) as bus:
        await bus.publish(declared(project))
        await write(upstream, *(ticket(project, f"aborted-{n}") for n in range(3)), abort=True)
        await write(upstream, ticket(project, "kept"), abort=False)
        async with running(ingest):
            await write(upstream, ticket(project, "late"), abort=True)
            await write(upstream, ticket(project, "last"), abort=False)
            found = await bus.collect(topics.RECORD_INGESTED, 2, where=lambda e: e.project == project)
            assert {event.data.source_id for event in found} == {"kept", "last"}
            await write(upstream, ticket(project, "later still"), abort=True)
            async with asyncio.timeout(PATIENCE_SECONDS):  # nothing is committed after the aborted records
                while any((await ingest.subscriptions.lag()).values()):
                    await asyncio.sleep(0.1)
            backlog = await ingest.subscriptions.backlog(topics.TICKET_PUBLISHED)
            assert backlog.has_kept(backlog.ends)
    seen = [event async for event in read_topics({"bootstrap_servers": kafka}, [topics.TICKET_PUBLISHED])]
    assert {e.data.ticket_id for e in seen if e.project == project} == {"kept", "last"}


async def test_a_view_and_a_search_do_not_see_what_was_aborted_and_reach_the_end(
    kafka: str,
    project: str,
    ingest: Service,
    upstream: AIOKafkaProducer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(record_search, "LONGEST_SECONDS", PATIENCE_SECONDS)
    event: Envelope[ProjectDeclared] = declared(project)
    view = ingest.view(topics.PROJECT_DECLARED)
    search = RecordSearch(ingest.settings, topics.PROJECT_DECLARED)
    async with running(ingest):
        await write(upstream, event, abort=True)
        await view.refresh()
        assert view.get(project) is None
        assert await search.find(project, event.time) is None
        await write(upstream, event, abort=False)
        # A broker shows a commit a moment after it has acknowledged it.
        await until(lambda: view.get(project) is not None)
        assert (await view.fresh(project)) == event
        assert await search.find(project, event.time) == event
    await search.close()
