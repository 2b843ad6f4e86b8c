"""What a topic's message becomes: events in the source's name, at the message's time."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.formats.source_spec import SourceSpec, group_of
from tunewheel_ingest.parsing.document import ParsedDocument
from tunewheel_ingest.parsing.formats import parse_file
from tunewheel_ingest.records import document_record, lowering
from tunewheel_ingest.sources.registry import Registry
from tunewheel_ingest.sources.topics import SourceTopics, handle, is_ours
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.foreign_topics import Handled

NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
MAPPING: dict[str, Any] = {
    "name": "crm",
    "kind": "ticket",
    "topic": "crm",
    "map": {"ticket_id": "no", "body": "text"},
}
FORMATS = ("json", "cloudevents", "debezium", "avro", "protobuf")


def message(value: bytes | None, key: bytes | None = None, **headers: bytes) -> Undecoded:
    return Undecoded(Position("crm", 0, 1), key, value, headers, logged_ms=int(NOON.timestamp() * 1_000))


def made(record: Undecoded, **changed: Any) -> Handled:
    source = SourceSpec.model_validate(MAPPING | changed)
    return asyncio.run(handle(record, source, "desk", Registry(None)))


def test_a_message_read_again_is_the_same_event_with_the_time_of_the_message() -> None:
    first, again = (made(message(b'{"no": 1, "text": "Hi"}'), trust="corrected") for _ in range(2))
    (event,) = first.events
    assert event == again.events[0]
    assert event.time == NOON
    assert (event.data.principal.name, event.data.principal.issuer) == ("desk/crm", "source")
    assert event.data.authority == "corrected"


@pytest.mark.parametrize("trust", ["unverified", "corrected", "expert"])
def test_a_document_of_a_source_is_the_record_that_it_is_through_any_door(trust: str) -> None:
    mapping = {"kind": "document", "map": {"document_id": "no", "content": "text"}, "trust": trust}
    (event,) = made(message(b'{"no": "a.md", "text": "Hi"}'), **mapping).events
    bare = replace(event, data=event.data.model_copy(update={"authority": None}))
    own, other = (document_record(one, ParsedDocument(markdown="Hi")) for one in (event, bare))
    assert (own.record_id, own.trust) == (other.record_id, "expert")


def test_a_date_after_the_message_is_capped_to_it() -> None:
    late = b'{"no": 1, "text": "Hi", "at": "2999-01-01T00:00:00Z"}'
    done = made(message(late), map={**MAPPING["map"], "created_at": "at"})
    assert done.events[0].data.created_at == NOON


def test_of_several_records_in_a_message_the_right_ones_count_and_a_wrong_one_is_told() -> None:
    done = made(message(json.dumps([{"no": 1, "text": "Hi"}, {"no": 2}, {"no": 3, "text": "Ho"}]).encode()))
    assert [event.data.ticket_id for event in done.events] == ["1", "3"]
    assert done.refusal is not None
    assert done.refusal.field == "body"


def test_a_binary_cloud_event_is_read_with_its_attributes() -> None:
    headers = {"ce_specversion": b"1.0", "ce_type": b"case.closed", "ce_id": b"1", "ce_source": b"/crm"}
    reads = {"where": "type == 'case.closed'", "map": {"ticket_id": "data.no", "body": "data.text"}}
    record = message(b'{"no": 1, "text": "Hi"}', **headers)
    assert len(made(record, format="cloudevents", **reads).events) == 1
    other = message(record.value, **{**headers, "ce_type": b"other"})
    assert not made(other, format="cloudevents", **reads).events


@pytest.mark.parametrize("value", [b"\0", b"\0\0\0\0\7Hi", b"\0" * 9, b"\1" + bytes(16)])
@pytest.mark.parametrize("format", ["json", "debezium", "cloudevents"])
def test_a_first_byte_of_other_formats_is_refused_where_no_registry_is_set(format: str, value: bytes) -> None:
    with pytest.raises(InvalidEvent) as refused:
        made(message(value), format=format)
    assert refused.value.field == "(body)"
    with pytest.raises(TransientError, match="TUNEWHEEL_SCHEMA_REGISTRY_URL"):
        made(message(b"\0\0\0\0\7Hi"), format="avro")


def test_json_never_asks_a_registry_whatever_its_message_begins_with() -> None:
    away = Registry("http://127.0.0.1:1")
    headers = {"__value_schema_id": b"\1" + bytes(16), "__key_schema_id": b"\1" + bytes(16)}
    record = message(b'\0\0\0\0\7{"no": 1, "text": "Hi"}', b"\0\0\0\0\7x", **headers)
    for plain in (record, replace(record, value=b'{"no": 1, "text": "Hi"}')):
        (event,) = asyncio.run(handle(plain, SourceSpec.model_validate(MAPPING), "desk", away)).events
        assert event.data.ticket_id == "1"
    with pytest.raises(TransientError):
        asyncio.run(handle(record, SourceSpec.model_validate(MAPPING | {"format": "avro"}), "desk", away))


def test_a_page_of_confluence_is_read_as_its_storage_format(tmp_path: Path) -> None:
    path = Path(__file__).parents[4] / "contracts/tests/sources/payloads/confluence_pages.json"
    source = SourceSpec(name="wiki", use="confluence", topic="wiki")
    (event,) = asyncio.run(handle(message(path.read_bytes()), source, "desk", Registry(None))).events
    page = tmp_path / "page"
    page.write_text(event.data.content)
    assert parse_file(page, event.data.media_type, event.data.document_id).markdown == (
        '# Restart\n\nClose the **red** valve.\n\n```bash\npump --restart && echo "<ok>"\n```\n\n'
        "Checked 2026-01-05."
    )


def test_a_message_without_a_value_withdraws_by_its_key() -> None:
    (event,) = made(message(None, b"C-1"), map={"ticket_id": "no || key", "body": "text"}).events
    assert (event.data.document_id, event.data.kind) == ("C-1", "ticket")
    assert made(message(None)) == Handled()


def test_sources_whose_names_hold_dots_have_groups_of_their_own() -> None:
    assert group_of("a", "b.c") != group_of("a.b", "c")


@pytest.mark.parametrize("prefix", ["", "acme."])
def test_topics_of_tunewheel_are_known_by_their_names_with_the_prefix_too(prefix: str) -> None:
    for name in ("record.ingested", "erasure.ingest", "ticket.published.dlq"):
        assert is_ours(prefix + name, prefix)
    assert is_ours("__consumer_offsets", prefix)
    assert not is_ours("crm.tickets", prefix)
    assert not is_ours(f"{prefix}tickets", prefix)


async def test_the_warning_of_a_source_goes_when_the_source_leaves_its_spec() -> None:
    warnings: dict[str, str | None] = {}
    health = SimpleNamespace(warn=warnings.__setitem__)
    service: Any = SimpleNamespace(settings=SimpleNamespace(topic_prefix=""), health=health)
    source = SourceSpec.model_validate(MAPPING)
    declared: list[Any] = [
        SimpleNamespace(project=name, data=SimpleNamespace(spec=SimpleNamespace(sources=(source,))))
        for name in ("desk", "shop")
    ]
    projects: Any = SimpleNamespace(values=lambda: declared)
    topics = SourceTopics(service, projects, Registry(None), allowed="")

    async def followed() -> set[str]:
        await topics.start()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await topics.stop()
        return {name for name, text in warnings.items() if text is not None}

    assert await followed() == {"source desk/crm", "source shop/crm"}
    service.health.warn(lowering("desk/crm"), "its answers were lowered")
    assert lowering("desk/crm") in await followed()
    del declared[0]
    assert await followed() == {"source shop/crm"}


@pytest.mark.parametrize("format", FORMATS)
def test_no_bytes_of_a_topic_raise_anything_else(format: str) -> None:
    source = SourceSpec.model_validate(MAPPING | {"format": format})
    names = st.sampled_from(["no", "text", "op", "after", "payload", "data", "x"])
    some = st.none() | st.booleans() | st.floats() | st.text(max_size=5)
    nested = st.recursive(
        some,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=4),
        max_leaves=8,
    )
    as_json = nested.map(lambda value: json.dumps(value).encode())
    values = st.none() | st.binary(max_size=60) | as_json

    @given(value=values, key=values)
    def tried(value: bytes | None, key: bytes | None) -> None:
        with contextlib.suppress(InvalidEvent, TransientError):
            asyncio.run(handle(message(value, key), source, "desk", Registry(None)))

    tried()
