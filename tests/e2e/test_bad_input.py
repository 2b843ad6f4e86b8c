"""What is wrong stops at the door with its field named, and what comes after it still flows."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import MessageSizeTooLargeError
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import DocumentPublished, TicketPublished
from tunewheel_runtime.service import Service
from tunewheel_testing.specs import declared, small_spec

from ..integration.bus import Bus, Letter, running

pytestmark = pytest.mark.e2e


def ingest(kafka: str, store: Path) -> Service:
    from tunewheel_ingest.main import make_app
    from tunewheel_ingest.settings import Settings

    return make_app(Settings(bootstrap_servers=kafka, store_url=store.as_uri()))


def registry(kafka: str, store: Path) -> Service:
    from tunewheel_registry.main import make_app
    from tunewheel_registry.settings import Settings

    return make_app(Settings(bootstrap_servers=kafka, store_url=store.as_uri()))


def ticket(project: str, number: int) -> Envelope[TicketPublished]:
    data = TicketPublished(project=project, ticket_id=f"T-{number}", body=f"bell {number}")
    return new_event(data, source="/test")


@dataclass(frozen=True)
class Bad:
    """One bad record of an upstream topic, and what its dead letter must say."""

    field: str
    says: str
    value: bytes
    topic: str = topics.TICKET_PUBLISHED.name
    headers: dict[str, bytes] = field(default_factory=dict)


def bad_records(project: str) -> list[Bad]:
    whole: dict[str, Any] = {"project": project, "ticket_id": "T-bad", "body": "x"}
    document: dict[str, Any] = {"project": project, "content": "x"}

    def as_json(raw: dict[str, Any]) -> bytes:
        return json.dumps(raw).encode()

    documents = topics.DOCUMENT_PUBLISHED.name
    return [
        Bad("(body)", "JSON", as_json(whole)[:-2]),
        Bad("(body)", "UTF-8", b'{"project": "\xff\xfe"}'),
        Bad("body", "is an object; give text in quotes", as_json(whole | {"body": {"text": "x"}})),
        Bad("body", "missing", as_json({k: v for k, v in whole.items() if k != "body"})),
        Bad("project", "not declared", as_json(whole | {"project": "nobody"})),
        Bad("document_id", "'..'", as_json(document | {"document_id": "../../etc/passwd"}), documents),
        Bad("document_id", "relative", as_json(document | {"document_id": "/etc/passwd"}), documents),
        Bad("document_id", "backslash", as_json(document | {"document_id": "..\\x.md"}), documents),
        Bad("document_id", "control", as_json(document | {"document_id": "a\0b"}), documents),
    ]


async def test_each_bad_record_is_a_dead_letter_that_names_its_field(
    kafka: str, tmp_path: Path, project: str
) -> None:
    bad = bad_records(project)
    sop = DocumentPublished(project=project, document_id="sops/good.md", content="Ring the bell.")
    async with Bus(kafka) as bus, running(ingest(kafka, tmp_path)):
        await bus.publish(declared(project))
        for number, record in enumerate(bad):
            await bus.send(record.topic, b"k", record.value, headers_of(record.topic, number))
            await bus.publish(ticket(project, number))
        await bus.publish(new_event(sop, source="/test"))
        letters = [
            letter
            for topic in (topics.TICKET_PUBLISHED.name, topics.DOCUMENT_PUBLISHED.name)
            for letter in await bus.dead_letters(topic, sum(record.topic == topic for record in bad))
        ]
        records = await bus.collect(
            topics.RECORD_INGESTED, len(bad) + 1, where=lambda e: e.project == project
        )
    by_value: dict[bytes, Letter] = {letter.value: letter for letter in letters}
    assert set(by_value) == {record.value for record in bad}, "the original bytes"
    for record in bad:
        letter = by_value[record.value]
        assert (letter.field, letter.source_topic) == (record.field, record.topic), letter
        assert record.says in letter.reason, letter
    sources = {f"T-{number}" for number in range(len(bad))} | {"sops/good.md"}
    assert {event.data.source_id for event in records} == sources


def headers_of(topic: str, number: int) -> dict[str, bytes]:
    attributes = {"specversion": "1.0", "id": f"bad-{number}", "source": "/test", "type": topic}
    return {f"ce_{name}": value.encode() for name, value in attributes.items()}


async def test_a_message_of_20_mb_is_refused_by_the_broker_and_the_next_one_flows(
    kafka: str, tmp_path: Path, project: str
) -> None:
    async with Bus(kafka) as bus, running(ingest(kafka, tmp_path)):
        await bus.publish(declared(project))
        producer = AIOKafkaProducer(bootstrap_servers=kafka, max_request_size=32 << 20)
        await producer.start()
        try:
            with pytest.raises(MessageSizeTooLargeError):
                await producer.send_and_wait(topics.TICKET_PUBLISHED.name, b"x" * (20 << 20), key=b"k")
        finally:
            await producer.stop()
        await bus.publish(ticket(project, 1))
        (record,) = await bus.collect(topics.RECORD_INGESTED, 1, where=lambda e: e.project == project)
    assert record.data.source_id == "T-1"


@pytest.mark.parametrize(
    ("section", "value", "field", "says"),
    [
        ("criteria", None, "criteria", "missing"),
        ("criteria", [{"metric": "valid_output", "minimum": 0.9, "maximum": 0.1}], "minimum", "contradicts"),
        ("train", {"method": "full", "quantization": "nf4"}, "quantization",
         "4-bit weights cannot be updated"),
    ],
    ids=["missing", "contradictory", "full on 4 bits"],
)  # fmt: skip
async def test_a_spec_with_bad_criteria_or_method_is_a_dead_letter_and_a_good_one_holds(
    kafka: str, tmp_path: Path, project: str, section: str, value: Any, field: str, says: str
) -> None:
    good = declared(project)
    async with Bus(kafka) as bus, running(registry(kafka, tmp_path)), running(ingest(kafka, tmp_path)):
        spec = small_spec(f"{project}-bad").model_dump(mode="json") | {section: value}
        if value is None:
            del spec[section]
        content = json.dumps({"project": f"{project}-bad", "spec": spec}).encode()
        topic = topics.PROJECT_DECLARED.name
        await bus.send(topic, b"bad", content, headers_of(topic, 0))
        await bus.publish(good, ticket(f"{project}-bad", 1), ticket(project, 2))
        (letter,) = await bus.dead_letters(topic, 1)
        (refused,) = await bus.dead_letters(topics.TICKET_PUBLISHED.name, 1)
        (record,) = await bus.collect(topics.RECORD_INGESTED, 1, where=lambda e: e.project == project)
    assert letter.field.startswith(f"spec.{section}")
    assert field in letter.field
    assert says in letter.reason
    assert (refused.field, "not declared" in refused.reason) == ("project", True)
    assert record.data.source_id == "T-2"
