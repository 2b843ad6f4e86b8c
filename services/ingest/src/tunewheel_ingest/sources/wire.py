"""Decodes the messages of other systems: JSON, or Confluent's wire format with Avro, Protobuf or JSON.

Source: Confluent, "Formats, Serializers, and Deserializers", wire format. The id of the schema stands before
the data, or in a header of its own: a zero byte and a number of four bytes, or a one and a GUID of sixteen.
For Protobuf the index of the message in its file follows the id.

The bytes are untrusted. Avro's decoder would read an array of empty items without end, and a schema that
holds itself as deep as the message says, so neither kind of schema is used.
"""

from __future__ import annotations

import base64
import importlib
import io
import itertools
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import cache, partial
from typing import Any, cast
from uuid import UUID

import pydantic_core
from tunewheel_contracts.errors import InvalidEvent

MOST_REFERENCES = 100
VALUE_ID, KEY_ID = "__value_schema_id", "__key_schema_id"
"""The headers that may hold the ids of schemas."""
WELL_KNOWN = (
    *("any", "duration", "empty", "field_mask", "source_context"),
    *("struct", "timestamp", "type", "api", "wrappers"),
)
"""The files of ``google.protobuf``, each after those that it needs."""
MOST_INDEXES = 32
MOST_NODES = 20_000
"""Most types in an Avro schema, of which each counts as often as it is used."""
MOST_DECIMAL_BYTES = 256
"""About 600 digits. The time to read a decimal grows with the square of its bytes: 400 kB take a minute."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A schema as the registry has it. ``name``: under which another schema refers to it."""

    name: str
    kind: str
    text: str
    references: list[dict[str, Any]]


SchemaId = int | str
"""The number of a schema, or its GUID."""
Schema = Callable[[bytes], Any]
"""Decodes the data of one message. Raises ``InvalidEvent``."""
Lookup = Callable[[SchemaId], Awaitable[Schema]]


async def decoded(value: bytes | None, lookup: Lookup | None, *, header: bytes = b"", framed: bool) -> Any:
    """Return a message's value or key; None: it has none.

    Args:
        lookup: returns a schema. None: all values are JSON, and no registry is asked.
        header: the header of the schema's id; empty: there is none.
        framed: the value must come with a schema's id. Otherwise it may, or be JSON.

    Raises:
        InvalidEvent: the value cannot be decoded.
        TransientError: see ``Registry.schema``.
    """
    if value is None:
        return None
    schema, body = _split(value, header if lookup is not None else b"")
    if schema is not None and lookup is not None:
        return (await lookup(schema))(body)
    if framed:
        reason = "comes without a schema's id (Confluent's wire format); correct the source's format"
        raise InvalidEvent(field="(body)", reason=reason)
    try:
        return parse_json(body)
    except InvalidEvent as error:
        if schema is None:
            raise
        reason = (
            "begins with a schema's id, and the rest is not JSON; write format: avro or protobuf in the "
            "source, or for debezium and cloudevents set TUNEWHEEL_SCHEMA_REGISTRY_URL of ingest"
        )
        raise InvalidEvent(field="(body)", reason=reason) from error


async def decoded_key(key: bytes | None, lookup: Lookup | None, *, header: bytes = b"") -> Any:
    """Return a message's key: decoded, or the text that it is. Other systems' keys may be any bytes."""
    try:
        return await decoded(key, lookup, header=header, framed=False)
    except InvalidEvent:
        return (key or b"").decode("utf-8", "replace")


def _split(value: bytes, header: bytes) -> tuple[SchemaId | None, bytes]:
    """Return the id of the schema, and what the schema decodes."""
    head, schema = header or value, None
    if head[:1] == b"\0" and len(head) >= 5:
        schema, rest = int.from_bytes(head[1:5], "big"), head[5:]
    elif head[:1] == b"\1" and len(head) >= 17:
        schema, rest = str(UUID(bytes=head[1:17])), head[17:]
    elif header:
        reason = "is no schema's id: it takes a zero byte and a number, or a one and a GUID"
        raise InvalidEvent(field="(schema)", reason=reason)
    else:
        return None, value
    return schema, rest + value if header else rest


def schema_of(registered: Sequence[Registered]) -> Schema:
    """Return the decoder of the first schema; the others are those that it refers to.

    Raises:
        InvalidEvent: the schema cannot be used.
    """
    kind = registered[0].kind
    makers = {"AVRO": _avro, "PROTOBUF": _protobuf, "JSON": lambda _: parse_json}
    if kind not in makers:
        raise InvalidEvent(field="(schema)", reason=f"is of the type {kind}; send AVRO, PROTOBUF or JSON")
    try:
        return makers[kind](registered)
    except InvalidEvent:
        raise
    except Exception as error:  # The libraries raise errors of many kinds, for a schema that is wrong.
        reason = f"cannot be read ({type(error).__name__}); register it again"
        raise InvalidEvent(field="(schema)", reason=reason) from error


def parse_json(value: bytes) -> Any:
    """Return a JSON value. Raises ``InvalidEvent``."""
    try:
        return pydantic_core.from_json(value, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidEvent(field="(body)", reason=f"is not JSON: {error}") from error


def _avro(registered: Sequence[Registered]) -> Schema:
    import fastavro

    _bound_decimals()
    named: dict[str, Any] = {}
    parsed: Any = None
    for one in reversed(registered):  # A schema comes after what refers to it.
        parsed = fastavro.parse_schema(json.loads(one.text), named_schemas=named)
    _takes_nothing(parsed, named, frozenset(), itertools.count())

    def read(body: bytes) -> Any:
        stream = io.BytesIO(body)
        try:
            value = json.dumps(fastavro.schemaless_reader(stream, parsed, None), default=_plain)
        except Exception as error:  # fastavro raises whatever the bytes lead to.
            reason = f"does not fit its Avro schema ({type(error).__name__})"
            raise InvalidEvent(field="(body)", reason=reason) from error
        if stream.read(1):
            raise InvalidEvent(field="(body)", reason="goes on after the value of its Avro schema")
        return json.loads(value)

    return read


@cache
def _bound_decimals() -> None:
    """Let fastavro refuse decimals that are longer than any number of another system."""
    from fastavro.read import LOGICAL_READERS

    readers: dict[str, Any] = LOGICAL_READERS
    for kind in ("bytes-decimal", "fixed-decimal"):
        readers[kind] = partial(_short, readers[kind])


def _short(read: Callable[..., Any], data: bytes, *schemas: Any) -> Any:
    if len(data) > MOST_DECIMAL_BYTES:
        raise ValueError("the decimal is too long")
    return read(data, *schemas)


def _takes_nothing(
    schema: Any, named: Mapping[str, Any], above: frozenset[str], nodes: Iterator[int]
) -> bool:
    """Return whether a value of ``schema`` may take no bytes. Refuse a schema by which a short message would
    become a value without end. ``above``: the records that hold it; ``nodes`` counts the types."""
    if next(nodes) > MOST_NODES:
        raise InvalidEvent(field="(schema)", reason=f"uses over {MOST_NODES} types; send a smaller schema")
    inner = partial(_takes_nothing, named=named, above=above, nodes=nodes)
    if isinstance(schema, list):
        for branch in cast("list[Any]", schema):
            inner(branch)
        return False  # The number of the branch takes a byte.
    if isinstance(schema, str):
        return inner(named[schema]) if schema in named else schema == "null"
    match schema["type"]:
        case "array" if inner(schema["items"]):
            raise InvalidEvent(field="(schema)", reason="has an array of empty items; give the items a field")
        case "map":
            inner(schema["values"])
            return False
        case "record" | "error":
            if (name := str(schema["name"])) in above:
                reason = f"{name} holds itself; send a schema without recursion"
                raise InvalidEvent(field="(schema)", reason=reason)
            inner = partial(inner, above=above | {name})
            found = [inner(one["type"]) for one in schema["fields"]]
            return all(found)
        case "fixed":
            return schema["size"] == 0
        case str() as kind:
            return kind == "null"
        case kind:
            return inner(kind)


def _plain(value: Any) -> str:
    """Return a value of Avro's logical types as a text."""
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return base64.b64encode(value).decode()
    return value.isoformat() if isinstance(value, datetime | date | time) else str(value)


def _protobuf(registered: Sequence[Registered]) -> Schema:
    from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

    pool = descriptor_pool.DescriptorPool()
    for name in WELL_KNOWN:
        module = importlib.import_module(f"google.protobuf.{name}_pb2")
        pool.AddSerializedFile(module.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto()
    for one in reversed(registered):
        file = descriptor_pb2.FileDescriptorProto.FromString(base64.b64decode(one.text, validate=True))
        file.name = one.name or "(message)"
        pool.AddSerializedFile(file.SerializeToString())

    def read(body: bytes) -> Any:
        stream = io.BytesIO(body)
        try:
            kind: Any = file
            names = [file.package] if file.package else []
            for index in _indexes(stream):
                kind = (kind.message_type if kind is file else kind.nested_type)[index]
                names.append(kind.name)
            message = message_factory.GetMessageClass(pool.FindMessageTypeByName(".".join(names)))()
            message.ParseFromString(stream.read())
            return json_format.MessageToDict(message, preserving_proto_field_name=True)
        except Exception as error:  # DecodeError, IndexError, and what JSON cannot represent
            reason = f"does not fit its Protobuf schema ({type(error).__name__})"
            raise InvalidEvent(field="(body)", reason=reason) from error

    return read


def _indexes(stream: io.BytesIO) -> list[int]:
    """Read the path of the message in its file: a count and so many numbers, as zigzag varints. A single zero
    stands for the first message.

    Raises:
        ValueError: the data does not begin so.
    """
    if not 0 <= (count := _varint(stream)) <= MOST_INDEXES:
        raise ValueError("no count of indexes")
    return [_varint(stream) for _ in range(count)] or [0]


def _varint(stream: io.BytesIO) -> int:
    number = 0
    for shift, (byte,) in zip(range(0, 35, 7), iter(lambda: stream.read(1), b""), strict=False):
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1)
    raise ValueError("no varint")
