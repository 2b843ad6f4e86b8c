"""Erasures on a real log: what leaves the dead letters, what stays, and what a repetition changes."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import TopicAuthorizationFailedError
from tunewheel_contracts import topics
from tunewheel_contracts.erasures import HOLDERS, erasure_of
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import ErasureCompleted
from tunewheel_contracts.events.upstream import ErasureRequested, TicketPublished
from tunewheel_curate import main as curate
from tunewheel_curate import settings as curate_settings
from tunewheel_eval import main as eval_main
from tunewheel_eval import settings as eval_settings
from tunewheel_index import main as index
from tunewheel_index import settings as index_settings
from tunewheel_ingest.main import make_app
from tunewheel_ingest.settings import Settings
from tunewheel_monitor import main as monitor
from tunewheel_monitor import settings as monitor_settings
from tunewheel_runtime.erased_letters import ErasedLetters
from tunewheel_runtime.service import Service
from tunewheel_serve_gateway import main as gateway
from tunewheel_serve_gateway import settings as gateway_settings
from tunewheel_testing.declaring import forget
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, Bus, running

pytestmark = pytest.mark.integration
LETTERS = "ticket.published.dlq"


def ingest(kafka: str, tmp_path: Path) -> Service:
    return make_app(Settings(bootstrap_servers=kafka, store_url=(tmp_path / "store").as_uri()))


def asked(project: str, customer: str, **more: Any) -> Envelope[ErasureRequested]:
    data = ErasureRequested(
        project=project, erasure_id=f"letter-{customer}", customer=customer, requested_by="privacy", **more
    )
    return new_event(data, source="/test")


async def refuse(bus: Bus, project: str, customer: str, ticket_id: str, **more: Any) -> None:
    """Publish a ticket that ingest refuses: its body is blank."""
    data = TicketPublished.model_construct(
        project=project, ticket_id=ticket_id, customer=customer, body=" ", **more
    )
    await bus.publish(new_event(data, source="/test"))


async def letters_of(kafka: str, word: str) -> list[Any]:
    """Return the letters on the whole topic whose key, value or headers hold ``word``."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=kafka, max_partition_fetch_bytes=8 << 20, auto_offset_reset="earliest"
    )
    await consumer.start()
    place, found = TopicPartition(LETTERS, 0), []
    try:
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [r for r in records if word.encode() in b"".join(_bytes(r))]
    finally:
        await consumer.stop()
    return found


def _bytes(record: Any) -> list[bytes]:
    return [record.key or b"", record.value or b"", *(value for _, value in record.headers)]


async def proof(bus: Bus, project: str, count: int = 1) -> list[Envelope[ErasureCompleted]]:
    return await bus.collect(topics.ERASURE_COMPLETED, count, where=lambda e: e.project == project)


async def test_letters_of_the_erased_are_emptied_and_those_of_others_stay_once(
    kafka: str, tmp_path: Path, project: str
) -> None:
    person, other = f"person-{project}", f"other-{project}"
    async with Bus(kafka) as bus, running(ingest(kafka, tmp_path)):
        await bus.publish(declared(project))
        await refuse(bus, project, other, "T-1")
        await bus.dead_letters("ticket.published", 1, about=other)  # before those that are emptied
        await refuse(bus, project, person, "T-2")
        await bus.send("ticket.published", b"T-3", f"no JSON, from {person}".encode(), {})
        await bus.dead_letters("ticket.published", 2, about=person)
        (before,) = await letters_of(kafka, other)
        event = asked(project, person)
        await bus.publish(event)
        (first,) = await proof(bus, project)
        assert await letters_of(kafka, person) == []
        (after,) = await letters_of(kafka, other)
        assert (after.key, after.value, after.headers) == (before.key, before.value, before.headers)
        assert after.timestamp == before.timestamp
        assert after.offset > before.offset
        places = [r for r in await letters_of(kafka, "(erased)") if r.offset > before.offset]
        assert len(places) == 2

        # the same ticket, as when a service reads its topic again
        data = TicketPublished.model_construct(project=project, ticket_id="T-2", customer=person, body=" ")
        await bus.publish(new_event(data, source="/test", time=event.time))
        await refuse(bus, project, person, "T-4")
        (since,) = await bus.dead_letters("ticket.published", 1, about="T-4")
        assert since.field == "body", "what was published since is not concerned"
        assert len(await letters_of(kafka, person)) == 1
        await bus.publish(event)
        _, second = await proof(bus, project, 2)
    assert (first.data.holder, first.data.erased_by, first.data.records) == ("ingest", "ingest", 2)
    assert first.causation_id == event.id
    assert (second.id, second.data.records) == (first.id, 2)
    assert len(await letters_of(kafka, person)) == 1


async def test_an_erasure_of_letters_that_was_cut_short_doubles_nothing(
    kafka: str, tmp_path: Path, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, other = f"person-{project}", f"other-{project}"
    service = ingest(kafka, tmp_path)
    async with Bus(kafka) as bus, running(service):
        await bus.publish(declared(project))
        for number, name in enumerate((other, person, other)):
            await refuse(bus, project, name, f"T-{number}")
        await bus.dead_letters("ticket.published", 3, about=project)
        erasure = replace_until(asked(project, person))

        async def killed(_: object) -> None:
            raise asyncio.CancelledError

        for _ in range(2):
            letters = ErasedLetters(service.settings, service.publisher, [LETTERS])
            assert await letters.find(erasure) == 1
            with monkeypatch.context() as patched:
                patched.setattr(ErasedLetters, "_delete", killed)
                with pytest.raises(asyncio.CancelledError):
                    await letters.remove(erasure)
        letters = ErasedLetters(service.settings, service.publisher, [LETTERS])
        assert await letters.find(erasure) == 1
        await letters.remove(erasure)
        assert await letters_of(kafka, person) == []
        assert len(await letters_of(kafka, other)) == 2
        assert await ErasedLetters(service.settings, service.publisher, [LETTERS]).find(erasure) == 0


def replace_until(event: Envelope[ErasureRequested]) -> Any:
    return erasure_of(replace(event, time=datetime.now(UTC)))


async def test_a_log_that_may_not_be_deleted_from_is_told(
    kafka: str, tmp_path: Path, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request becomes a dead letter that says what right is missing; ingest goes on."""
    from aiokafka.admin import AIOKafkaAdminClient

    async def forbidden(*_: object) -> None:
        raise TopicAuthorizationFailedError

    service = ingest(kafka, tmp_path)
    async with Bus(kafka) as bus, running(service):
        await bus.publish(declared(project))
        await refuse(bus, project, f"person-{project}", "T-1")
        await bus.dead_letters("ticket.published", 1, about=project)
        letters = ErasedLetters(service.settings, service.publisher, [LETTERS])
        erasure = replace_until(asked(project, f"person-{project}"))
        await letters.find(erasure)
        monkeypatch.setattr(AIOKafkaAdminClient, "delete_records", forbidden)
        with pytest.raises(InvalidEvent, match=r"ticket\.published\.dlq; allow it, then ask again"):
            await letters.remove(erasure)


async def test_forget_waits_for_every_holder_and_says_who_did_not_answer(
    kafka: str, tmp_path: Path, project: str
) -> None:
    places: dict[str, Any] = {
        "bootstrap_servers": kafka,
        "store_url": (tmp_path / "store").as_uri(),
        "cache_dir": tmp_path / "cache",
    }
    quick = curate.make_app(curate_settings.Settings(**places))
    others = (
        eval_main.make_app(eval_settings.Settings(**places)),
        monitor.make_app(monitor_settings.Settings(**places)),
        gateway.make_app(gateway_settings.Settings(**places)),
        index.make_app(index_settings.Settings(**places)),
    )
    async with AsyncExitStack() as stack:
        bus = await stack.enter_async_context(Bus(kafka))
        await bus.publish(declared(project))
        for service in (ingest(kafka, tmp_path), quick):
            await stack.enter_async_context(running(service))
        await refuse(bus, project, f"person-{project}", "T-1")
        await bus.dead_letters("ticket.published", 1, about=project)
        options = {"bootstrap_servers": kafka}
        told = await forget(options, project, f"person-{project}", seconds=8)
        assert {"eval", "monitor", "serve-gateway", "index"} <= set(told.missing)
        first = {event.data.holder: event.data.records for event in await proof(bus, project, 2)}
        assert first == {"curate": 0, "ingest": 1}
        assert told.as_json()["holders"].items() <= first.items(), "on a busy machine they may take longer"
        for service in others:
            await stack.enter_async_context(running(service))
        # those that were down carry out what was asked before; a request sent anew finds them all
        late = await proof(bus, project, len(HOLDERS))
        assert {event.data.holder for event in late} == set(HOLDERS)
        told = await forget(options, project, f"person-{project}", seconds=PATIENCE_SECONDS)
        assert told.missing == ()
