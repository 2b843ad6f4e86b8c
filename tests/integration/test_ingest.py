"""Ingest on a real broker: records come out, dead letters tell why, nothing blocks the partition."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.data import RedeliveryRequested
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_runtime.deadletter import Undecoded, letter_id
from tunewheel_runtime.log import read
from tunewheel_testing.dead_letters import dead_letter_counts, read_dead_letters
from tunewheel_testing.reading import read_topics
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, Bus, running, until

pytestmark = pytest.mark.integration


def ingest(kafka: str, tmp_path, **settings):
    from tunewheel_ingest.main import make_app
    from tunewheel_ingest.settings import Settings

    return make_app(Settings(bootstrap_servers=kafka, store_url=(tmp_path / "store").as_uri(), **settings))


async def test_good_and_bad_tickets(kafka: str, tmp_path, project: str) -> None:
    async with Bus(kafka) as bus, running(ingest(kafka, tmp_path)):
        await bus.publish(declared(project))
        good = [
            new_event(TicketPublished(project=project, ticket_id=f"T-{n}", body=f"bell {n}"), source="/test")
            for n in range(20)
        ]
        await bus.publish(*good[:10])
        bad = {
            "ce_type": {},
            "body": {"project": project, "ticket_id": "T-x", "body": 7},
            "tickte_id": {"project": project, "ticket_id": "T-x", "body": "x", "tickte_id": "y"},
            "project": {"project": "nobody", "ticket_id": "T-x", "body": "x"},
        }
        headers = good[0].to_kafka().headers
        no_project = {name: value for name, value in headers.items() if name != "ce_project"}
        await bus.send("ticket.published", b"k", b"{}", {})
        for field in ("body", "tickte_id", "project"):
            await bus.send("ticket.published", b"k", json.dumps(bad[field]).encode(), no_project)
        await bus.send("ticket.published", b"k", b"\xff\xfe", headers)
        await bus.send("ticket.published", b"k", b'{"project":', headers)
        await bus.send("ticket.published", b"k", b"{}", {"ce_id": None, "ce_type": b"\xff"})
        await bus.publish(*good[10:])

        records = await bus.collect(topics.RECORD_INGESTED, 20, where=lambda e: e.project == project)
        assert {e.data.source_id for e in records} == {f"T-{n}" for n in range(20)}
        assert {e.causation_id for e in records} == {e.id for e in good}
        letters = await bus.dead_letters("ticket.published", 7)
        assert sorted(letter.field for letter in letters) == sorted(
            ["ce_type", "body", "tickte_id", "project", "(body)", "(body)", "ce_type"]
        )
        assert all(letter.source_topic == "ticket.published" for letter in letters)
        assert b"\xff\xfe" in {letter.value for letter in letters}
    options = {"bootstrap_servers": kafka}
    shown = [letter async for letter in read_dead_letters(options, [topics.TICKET_PUBLISHED])]
    assert {(letter.field, letter.message) for letter in shown} >= {
        ("body", json.dumps(bad["body"])), ("(body)", "\\xff\\xfe"), ("ce_type", "{}"),
    }  # fmt: skip
    assert {letter.service for letter in shown if "tickte_id" in letter.message} == {"ingest"}
    assert (await dead_letter_counts(options))["ticket.published"] == len(shown)


async def test_a_flood_of_an_undeclared_project_stops_nobody_even_after_a_restart(
    kafka: str, tmp_path, project: str
) -> None:
    stranger = f"undeclared-{project}"

    def ticket(owner: str, name: str):
        return new_event(TicketPublished(project=owner, ticket_id=name, body=f"bell {name}"), source="/test")

    async with Bus(kafka) as bus:
        await bus.publish(declared(project))
        for number, start in enumerate(("first", "second"), 1):
            service = ingest(kafka, tmp_path, dead_letter_limit=5, dead_letter_window=10)
            async with running(service):
                await bus.publish(*(ticket(stranger, f"{start} {n}") for n in range(30)))
                await bus.publish(ticket(project, start))
                await until(lambda made=service: stranger in str(made.health.state().get("warnings")))
                await bus.collect(
                    topics.RECORD_INGESTED, 1, where=lambda e, name=start: e.data.source_id == name
                )
                letters = await bus.dead_letters("ticket.published", 30 * number, about=stranger)
                assert service.failure is None
        assert {letter.field for letter in letters} == {"project"}


async def test_a_refused_ticket_is_handled_again_once_its_reason_is_gone(
    kafka: str, tmp_path, project: str
) -> None:
    def wanted(name: str, at: Undecoded, **fields: object):
        data = {"project": project, "letter_id": name, "topic": "ticket.published", **fields}
        place = {"partition": at.position.partition, "offset": at.position.offset}
        return new_event(RedeliveryRequested.model_validate(place | data), source="/test")

    async with Bus(kafka) as bus, running(ingest(kafka, tmp_path)):
        early = new_event(TicketPublished(project=project, ticket_id="T-1", body="bell"), source="/test")
        await bus.publish(early)
        await bus.dead_letters("ticket.published", 1, about=project)
        await bus.publish(declared(project))
        found = [
            letter
            async for letters in read({"bootstrap_servers": kafka}, ["ticket.published.dlq"])
            for letter in letters
            if letter.headers.get("ce_project") == project.encode()
        ]
        (letter,) = found
        name = letter_id(letter)
        for refused in (
            wanted(name[:-1] + "99", letter),
            wanted(name, letter, offset=10**6),
            wanted(name, letter, topic="eval.passed"),
            wanted(name, letter, project=f"{project}-2"),
        ):
            await bus.publish(refused)
        await bus.publish(wanted(name, letter), wanted(name, letter))  # twice is harmless

        records = await bus.collect(topics.RECORD_INGESTED, 2, where=lambda e: e.project == project)
        assert {(e.causation_id, e.time) for e in records} == {(early.id, early.time)}
        letters = await bus.dead_letters("redelivery.requested", 4, about=project)
        assert [one.field for one in letters] == ["letter_id", "letter_id", "topic", "project"]


async def test_http_takes_json_lines_and_names_the_bad_one(kafka: str, tmp_path, project: str) -> None:
    service = ingest(kafka, tmp_path)
    async with Bus(kafka) as bus, running(service):
        await bus.publish(declared(project))
        lines = [json.dumps({"ticket_id": f"H-{n}", "body": f"horn {n}"}) for n in range(1_000)]
        lines[499] = '{"ticket_id": "H-499", "body": '
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{service.doors.http_port}", timeout=60
        ) as client:
            answer = await client.post(
                f"/v1/tickets?project={project}",
                content="\n".join(lines),
                headers={"content-type": "application/x-ndjson"},
            )
            assert answer.status_code == 202
            receipt = answer.json()
            assert receipt["accepted"] == 999
            assert [(r["line"], r["field"]) for r in receipt["refused"]] == [(500, "(body)")]
            too_big = await client.post(
                "/v1/tickets", content=b"x" * (20 << 20), headers={"content-type": "application/json"}
            )
            assert too_big.status_code == 413
            assert "shorten it" in too_big.json()["refused"][0]["reason"]
            unknown = await client.post(
                "/v1/tickets", json={"project": "nobody", "ticket_id": "1", "body": "b"}
            )
            assert unknown.status_code == 422
            assert unknown.json()["refused"][0]["field"] == "project"
            traversal = await client.post(
                "/v1/documents", json={"project": project, "document_id": "../../etc/passwd", "content": "x"}
            )
            assert traversal.json()["refused"][0]["field"] == "document_id"
        records = await bus.collect(topics.RECORD_INGESTED, 999, where=lambda e: e.project == project)
        assert len({e.data.record_id for e in records}) == 999


async def test_a_request_sent_again_under_its_key_is_carried_out_once_even_after_a_restart(
    kafka: str, tmp_path, project: str
) -> None:
    key = {"idempotency-key": f"import-{project}", "content-type": "application/x-ndjson"}
    lines = [json.dumps({"ticket_id": f"K-{n}", "body": f"bell {n}"}) for n in range(3)]
    answers: list[httpx.Response] = []

    async with Bus(kafka) as bus, httpx.AsyncClient(timeout=60) as client:
        await bus.publish(declared(project))

        async def post(service, *sent: str) -> httpx.Response:
            url = f"http://127.0.0.1:{service.doors.http_port}/v1/tickets?project={project}"
            return await client.post(url, content="\n".join(sent), headers=key)

        async with running(ingest(kafka, tmp_path)) as service:
            answers += [await post(service, *lines), await post(service, *lines)]
        async with running(ingest(kafka, tmp_path)) as service:
            answers += [await post(service, *lines)]
            changed = await post(service, lines[0])
        options = {"bootstrap_servers": kafka}
        published = [
            event
            async for event in read_topics(options, (topics.TICKET_PUBLISHED,))
            if event.project == project
        ]
    assert [answer.status_code for answer in answers] == [202] * 3
    assert answers[0].json() == answers[1].json() == answers[2].json()
    assert [answer.headers.get("idempotency-replayed") for answer in answers] == [None, "true", "true"]
    assert sorted(answers[0].json()["event_ids"]) == sorted(event.id for event in published)
    assert len(published) == 3
    assert changed.status_code == 422
    (refused,) = changed.json()["refused"]
    assert refused["field"] == "Idempotency-Key"
    assert "was used for another request; choose another key" in refused["reason"]


async def test_a_ticket_from_the_future_counts_as_published_when_it_was_logged(
    kafka: str, tmp_path, project: str
) -> None:
    """Neither ``ce_time`` nor a producer's own timestamp may put a record beyond the reach of an erasure."""
    async with Bus(kafka) as bus, running(ingest(kafka, tmp_path)):
        await bus.publish(declared(project))
        ahead = datetime.now(UTC) + timedelta(minutes=50)
        ticket = TicketPublished(project=project, ticket_id="T-1", body="bell")
        record = new_event(ticket, source="/test", time=ahead).to_kafka()
        sent_ms = int(ahead.timestamp() * 1000)
        await bus.send(record.topic, record.key, record.value, record.headers, timestamp_ms=sent_ms)
        (made,) = await bus.collect(topics.RECORD_INGESTED, 1, where=lambda e: e.project == project)
        assert made.time <= datetime.now(UTC)


async def test_a_redelivered_event_makes_the_same_record(kafka: str, tmp_path, project: str) -> None:
    async with Bus(kafka) as bus, running(ingest(kafka, tmp_path)):
        await bus.publish(declared(project))
        ticket = new_event(TicketPublished(project=project, ticket_id="T-1", body="bell"), source="/test")
        await asyncio.gather(*(bus.publish(ticket) for _ in range(3)))
        records = await bus.collect(topics.RECORD_INGESTED, 3, where=lambda e: e.project == project)
        assert len({e.id for e in records}) == 1


@pytest.mark.nightly("kills")
async def test_a_post_while_the_broker_is_away_answers_503_and_is_taken_once_it_is_back(
    broker_factory, tmp_path, project: str
) -> None:
    broker = await asyncio.to_thread(broker_factory)
    service = ingest(broker.bootstrap_servers, tmp_path, publish_seconds=1.0)

    async def post(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post("/v1/tickets", json={"project": project, "ticket_id": "T-1", "body": "bell"})

    async with Bus(broker.bootstrap_servers) as bus:
        await bus.publish(declared(project))
    async with running(service):
        url = f"http://127.0.0.1:{service.doors.http_port}"
        async with httpx.AsyncClient(base_url=url, timeout=PATIENCE_SECONDS) as client:
            while (await post(client)).status_code != 202:
                await asyncio.sleep(0.1)
            await asyncio.to_thread(broker.kill)
            away = await post(client)
            assert (away.status_code, away.headers["retry-after"]) == (503, "5")
            assert "the broker did not acknowledge within 1 s" in away.json()["error"]
            await asyncio.to_thread(broker.start)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while (await post(client)).status_code != 202:
                    await asyncio.sleep(0.1)
    assert service.failure is None
