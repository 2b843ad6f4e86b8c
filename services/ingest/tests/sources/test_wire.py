"""Confluent's wire format, by schemas of a real server of the registry's protocol."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime
import io
import json
import struct
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import fastavro
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_ingest.sources import wire
from tunewheel_ingest.sources.registry import Registry
from tunewheel_ingest.sources.wire import (
    MOST_DECIMAL_BYTES,
    Registered,
    Schema,
    decoded_key,
    schema_of,
)

ADDRESS = {
    "type": "record",
    "name": "Address",
    "namespace": "crm",
    "fields": [{"name": "city", "type": "string"}],
}
TICKET = {
    "type": "record", "name": "Ticket", "namespace": "crm", "fields": [
        {"name": "id", "type": "long"}, {"name": "text", "type": ["null", "string"]},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
        {"name": "paid", "type": {"type": "bytes", "logicalType": "decimal", "precision": 8, "scale": 2}},
        {"name": "address", "type": "crm.Address"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}  # fmt: skip
GUID = UUID("cc0e0e0e-53c1-4a1a-8f1a-000000000001")
EMPTY = {"type": "record", "name": "E", "fields": []}
HOSTILE = {
    11: {"type": "array", "items": "null"},
    12: {"type": "array", "items": EMPTY},
    13: {"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]},
    14: {"type": "map", "values": {"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}},
    15: {"type": "record"},
}


def proto_file() -> descriptor_pb2.FileDescriptorProto:
    """Return the descriptor of a file with a message within a message, and a well-known type."""
    file = descriptor_pb2.FileDescriptorProto(name="ticket.proto", package="crm", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    file.message_type.add(name="Other")
    outer = file.message_type.add(name="Outer")
    inner = outer.nested_type.add(name="Ticket")
    inner.field.add(name="ticket_id", number=1, type="TYPE_STRING", label="LABEL_OPTIONAL")
    inner.field.add(
        name="at",
        number=2,
        type="TYPE_MESSAGE",
        label="LABEL_OPTIONAL",
        type_name=".google.protobuf.Timestamp",
    )
    return file


class Server(BaseHTTPRequestHandler):
    asked: list[str] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        address = {"schema": json.dumps(ADDRESS), "subject": "address", "version": 2}
        ticket = {
            "schema": json.dumps(TICKET),
            "references": [{"name": "crm.Address", "subject": "address", "version": 2}],
        }
        serialized = base64.b64encode(proto_file().SerializeToString()).decode()
        found = {
            "/schemas/ids/1": ticket, "/subjects/address/versions/2": address,
            f"/schemas/guids/{GUID}": ticket,
            "/schemas/ids/2": {"schemaType": "PROTOBUF", "schema": 'syntax = "proto3";'},
            "/schemas/ids/2?format=serialized": {"schemaType": "PROTOBUF", "schema": serialized},
            "/schemas/ids/3": {"schemaType": "JSON", "schema": "{}"},
        }.get(self.path)  # fmt: skip
        last = self.path.rpartition("/")[2]
        number = int(last) if last.isdigit() else 0
        if number in HOSTILE:
            found = {"schema": json.dumps(HOSTILE[number])}
        self.send_response(number if number in (400, 401, 422, 500) else 404 if found is None else 200)
        self.end_headers()
        self.wfile.write(json.dumps(found or {}).encode())

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def record_of(fields: list[dict[str, Any]]) -> dict[str, Any]:
    return {"type": "record", "name": "R", "fields": fields}


async def decoded(
    value: bytes | None, registry: Registry, *, framed: bool = False, header: bytes = b""
) -> Any:
    return await wire.decoded(value, registry.schema, framed=framed, header=header)


def framed(number: int, body: bytes) -> bytes:
    return struct.pack(">bI", 0, number) + body


def avro_ticket() -> bytes:
    named: dict[str, Any] = {}
    fastavro.parse_schema(ADDRESS, named_schemas=named)
    out = io.BytesIO()
    at = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    ticket = {
        "id": 7,
        "text": "Hi",
        "at": at,
        "paid": Decimal("1.00"),
        "address": {"city": "Bern"},
        "tags": ["a"],
    }
    fastavro.schemaless_writer(out, fastavro.parse_schema(TICKET, named_schemas=named), ticket)
    return out.getvalue()


async def test_avro_is_decoded_with_the_schemas_that_its_schema_refers_to_each_fetched_once(url: str) -> None:
    registry, Server.asked = Registry(url), []
    for _ in range(2):
        assert await decoded(framed(1, avro_ticket()), registry) == {
            "id": 7, "text": "Hi", "at": "2026-01-02T00:00:00+00:00", "paid": "1.00",
            "address": {"city": "Bern"}, "tags": ["a"],
        }  # fmt: skip
    assert Server.asked == ["/schemas/ids/1", "/subjects/address/versions/2"]


async def test_protobuf_is_decoded_by_the_place_of_the_message_in_its_file(url: str) -> None:
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(proto_file().SerializeToString())
    message = message_factory.GetMessageClass(pool.FindMessageTypeByName("crm.Outer.Ticket"))(ticket_id="T-1")
    message.at.FromJsonString("2026-01-02T00:00:00Z")
    body = (
        b"\x04\x02\x00" + message.SerializeToString()
    )  # two indexes: the second message, the first within it
    assert await decoded(framed(2, body), Registry(url)) == {"ticket_id": "T-1", "at": "2026-01-02T00:00:00Z"}
    assert await decoded(framed(2, b"\x00"), Registry(url)) == {}  # the first message of the file


async def test_json_is_read_with_and_without_a_frame_and_keys_may_be_texts(url: str) -> None:
    registry = Registry(url)
    assert await decoded(framed(3, b'{"a": 1}'), registry) == {"a": 1}
    assert await decoded(b'{"a": 1}', registry) == {"a": 1}
    assert await decoded(None, registry) is None
    assert await decoded_key(b"T-1", registry.schema) == "T-1"
    assert await decoded_key(b'{"id": 1}', registry.schema) == {"id": 1}


@pytest.mark.parametrize("before", [False, True])
async def test_a_schema_is_found_by_the_guid_in_a_header_or_before_the_data(url: str, before: bool) -> None:
    def parts(head: bytes, body: bytes) -> dict[str, Any]:
        return {"value": head + body} if before else {"value": body, "header": head}

    registry, Server.asked = Registry(url), []
    ticket = await decoded(**parts(b"\1" + GUID.bytes, avro_ticket()), registry=registry)
    assert (ticket["id"], ticket["address"]) == (7, {"city": "Bern"})
    assert Server.asked == [f"/schemas/guids/{GUID}", "/subjects/address/versions/2"]
    # In the header the index of Protobuf's message follows the id.
    assert await decoded(**parts(struct.pack(">bI", 0, 2) + b"\0", b""), registry=registry) == {}
    with pytest.raises(InvalidEvent, match="no /schemas/guids/0"):
        await decoded(**parts(b"\1" + bytes(16), b"{}"), registry=registry)


async def test_a_header_that_is_no_id_refuses_the_message_only_where_schemas_are_looked_up(url: str) -> None:
    for header in (b"\1" + bytes(15), b"\2" + bytes(16), b"7"):
        with pytest.raises(InvalidEvent, match="is no schema's id"):
            await decoded(b"{}", Registry(url), header=header)
        assert await wire.decoded(b"{}", None, header=header, framed=False) == {}


async def test_without_a_lookup_framed_json_is_read_and_anything_else_is_refused() -> None:
    assert await wire.decoded(framed(3, b'{"a": 1}'), None, framed=False) == {"a": 1}
    for wrong in (framed(1, avro_ticket()), framed(0, b""), b"\1" + bytes(16) + b"x"):
        with pytest.raises(InvalidEvent, match="format: avro or protobuf in the source"):
            await wire.decoded(wrong, None, framed=False)
    with pytest.raises(InvalidEvent, match="is not JSON"):
        await wire.decoded(b"\0\0", None, framed=False)
    number = struct.pack(">q", 7)  # as Kafka's own serializer writes a number
    assert await decoded_key(number, None) == number.decode()


async def test_messages_that_do_not_fit_are_refused(url: str) -> None:
    registry = Registry(url)
    for wrong in (avro_ticket()[:-3], avro_ticket() + b"x", b"", b"\xff" * 40):
        with pytest.raises(InvalidEvent):
            await decoded(framed(1, wrong), registry)
    for wrong in (b"", b"\xff\xff\xff\xff\xff\xff", b"\x02\x7e", b"\x04\x02\x00\xff", b"\x03"):
        with pytest.raises(InvalidEvent):
            await decoded(framed(2, wrong), registry)
    with pytest.raises(InvalidEvent, match="schema's id"):
        await decoded(b"{}", registry, framed=True)


@pytest.mark.parametrize("number", sorted(HOSTILE))
async def test_a_schema_by_which_few_bytes_are_a_value_without_end_is_not_used(url: str, number: int) -> None:
    with pytest.raises(InvalidEvent) as caught:
        await decoded(framed(number, b"\xfe\xff\xff\xff\xff\xff\xff\xff\x7f"), Registry(url))
    assert caught.value.field == "(schema)"


@pytest.mark.parametrize("kind", ["bytes", "fixed"])
def test_a_decimal_that_is_too_long_to_be_a_number_is_refused(kind: str) -> None:
    for size in (MOST_DECIMAL_BYTES, MOST_DECIMAL_BYTES + 1):
        decimal = {"type": kind, "logicalType": "decimal", "precision": 4, "scale": 2}
        decimal |= {"name": "F", "size": size} if kind == "fixed" else {}
        fields = [{"name": "id", "type": "string"}, {"name": "paid", "type": decimal}]
        read = schema_of([Registered("", "AVRO", json.dumps(record_of(fields)), [])])
        out = io.BytesIO()
        plain = {**decimal, "logicalType": "none"}
        as_bytes = fastavro.parse_schema(record_of([fields[0], {"name": "paid", "type": plain}]))
        fastavro.schemaless_writer(out, as_bytes, {"id": "1", "paid": b"\x01" * size})
        if size == MOST_DECIMAL_BYTES:
            assert read(out.getvalue())["id"] == "1"
        else:
            with pytest.raises(InvalidEvent):
                read(out.getvalue())


async def test_an_unknown_schema_refuses_the_message_and_a_registry_that_is_away_lets_it_wait(
    url: str,
) -> None:
    for number in (400, 404, 422):
        with pytest.raises(InvalidEvent, match=f"no /schemas/ids/{number}"):
            await decoded(framed(number, b""), Registry(url))
    for away in (Registry(url), Registry("http://127.0.0.1:1"), Registry(None)):
        with pytest.raises(TransientError):
            await decoded(framed(500, b""), away)
    with pytest.raises(TransientError):
        await decoded(framed(401, b""), Registry(url))


@pytest.fixture(scope="module")
def schemas(url: str) -> list[Schema]:
    async def fetch() -> list[Schema]:
        return [await Registry(url).schema(number) for number in (1, 2, 3)]

    return asyncio.run(fetch())


@given(body=st.binary(max_size=200))
def test_no_bytes_raise_anything_else(schemas: list[Schema], body: bytes) -> None:
    for schema in schemas:
        with contextlib.suppress(InvalidEvent):
            schema(body)
