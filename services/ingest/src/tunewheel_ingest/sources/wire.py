"""Decodes the messages of other systems: JSON, or Confluent's wire format with Avro, Protobuf or JSON.

Source: Confluent, "Formats, Serializers, and Deserializers", wire format: a zero byte, the schema's id in
four bytes, then the data; for Protobuf the index of the message in its file comes first.

The bytes are untrusted. Avro's decoder would read an array of empty items without end, and a schema that
holds itself as deep as the message says, so neither kind of schema is used.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import cache, partial
from typing import Any, Protocol, cast

import pydantic_core
from tunewheel_contracts.errors import InvalidEvent

MOST_REFERENCES = 100
MAGIC = b"\0"
HEAD = 5
WELL_KNOWN = [
    "any",
    "duration",
    "empty",
    "field_mask",
    "source_context",
    "struct",
    "timestamp",
    "type",
    "api",
    "wrappers",
]
"""The files of ``google.protobuf``, each after those that it needs."""
MOST_INDEXES = 32
MOST_FIELDS = 10_000
MOST_DECIMAL_BYTES = 256
"""About 600 digits. The time to read a decimal grows with the square of its bytes: 400 kB take a minute."""


@dataclass(frozen=True, slots=True)
class Registered:
    """A schema as the registry has it. ``name``: under which another schema refers to it."""

    name: str
    kind: str
    text: str
    references: list[dict[str, Any]]


Schema = Callable[[bytes], Any]
"""Decodes the data of one message. Raises ``InvalidEvent``."""


class Schemas(Protocol):
    async def schema(self, number: int) -> Schema: ...


async def decoded(value: bytes | None, schemas: Schemas, *, framed: bool = False) -> Any:
    """Return a message's value; None: it has none.

    Args:
        framed: the message must begin with a schema's id. Otherwise it may, or be JSON.

    Raises:
        InvalidEvent: the message cannot be decoded.
        TransientError: see ``Registry.schema``.
    """
    if value is None:
        return None
    if value[:1] == MAGIC and len(value) >= HEAD:
        schema = await schemas.schema(int.from_bytes(value[1:HEAD], "big"))
        return schema(value[HEAD:])
    if framed:
        reason = "does not begin with a schema's id (Confluent's wire format); correct the source's format"
        raise InvalidEvent(field="(body)", reason=reason)
    return parse_json(value)


async def decoded_key(key: bytes | None, schemas: Schemas) -> Any:
    """Return a message's key: decoded, or the text that it is."""
    if key is None or key[:1] == MAGIC:
        return await decoded(key, schemas)
    try:
        return parse_json(key)
    except InvalidEvent:
        return key.decode("utf-8", "replace")


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
    _AvroCheck(named).takes_nothing(parsed, frozenset())

    def read(body: bytes) -> Any:
        stream = io.BytesIO(body)
        try:
            value = fastavro.schemaless_reader(stream, parsed, None)
        except Exception as error:  # fastavro raises whatever the bytes lead to.
            raise InvalidEvent(
                field="(body)", reason=f"does not fit its Avro schema ({type(error).__name__})"
            ) from error
        if stream.read(1):
            raise InvalidEvent(field="(body)", reason="goes on after the value of its Avro schema")
        return _plain(value)

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


@dataclass(slots=True)
class _AvroCheck:
    """Refuses schemas by which a short message would become a value without end."""

    named: dict[str, Any]
    fields: int = 0

    def takes_nothing(self, schema: Any, above: frozenset[str]) -> bool:
        """Return whether a value of ``schema`` may take no bytes. ``above``: the records that hold it."""
        if isinstance(schema, list):
            for branch in cast("list[Any]", schema):
                self.takes_nothing(branch, above)
            return False  # the number of the branch takes a byte
        if isinstance(schema, str):
            return self.takes_nothing(self.named[schema], above) if schema in self.named else schema == "null"
        kind = schema["type"]
        if not isinstance(kind, str):
            return self.takes_nothing(kind, above)
        if kind == "array" and self.takes_nothing(schema["items"], above):
            raise InvalidEvent(field="(schema)", reason="has an array of empty items; give the items a field")
        if kind == "map":
            self.takes_nothing(schema["values"], above)
        if kind in ("record", "error"):
            return self._record_takes_nothing(schema, above)
        return kind == "null" or (kind == "fixed" and schema["size"] == 0)

    def _record_takes_nothing(self, schema: Any, above: frozenset[str]) -> bool:
        name = str(schema["name"])
        self.fields += len(schema["fields"])
        if name in above:
            raise InvalidEvent(
                field="(schema)", reason=f"{name} holds itself; send a schema without recursion"
            )
        if self.fields > MOST_FIELDS:
            raise InvalidEvent(
                field="(schema)", reason=f"has over {MOST_FIELDS} fields; send a smaller schema"
            )
        found = [self.takes_nothing(one["type"], above | {name}) for one in schema["fields"]]
        return all(found)


def _plain(value: Any) -> Any:
    """Return a value of Avro's logical types as JSON has it."""
    match value:
        case dict():
            return {name: _plain(one) for name, one in cast("dict[str, Any]", value).items()}
        case list():
            return [_plain(one) for one in cast("list[Any]", value)]
        case bytes():
            try:
                return value.decode("utf-8")
            except UnicodeDecodeError:
                return base64.b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case None | bool() | int() | float() | str():
            return value
        case _:  # a UUID, a Decimal
            return str(value)


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
        indexes, rest = _indexes(body)
        try:
            kind: Any = file.message_type[indexes[0]]
            names = [file.package] if file.package else []
            names.append(kind.name)
            for index in indexes[1:]:
                kind = kind.nested_type[index]
                names.append(kind.name)
            message = message_factory.GetMessageClass(pool.FindMessageTypeByName(".".join(names)))()
            message.ParseFromString(rest)
            return json_format.MessageToDict(message, preserving_proto_field_name=True)
        except Exception as error:  # DecodeError, IndexError, and what JSON cannot represent
            reason = f"does not fit its Protobuf schema ({type(error).__name__})"
            raise InvalidEvent(field="(body)", reason=reason) from error

    return read


def _indexes(body: bytes) -> tuple[list[int], bytes]:
    """Return the path of the message in its file, and the rest: a count and so many numbers, as zigzag
    varints; a single zero stands for the first message."""
    count, at = _varint(body, 0)
    if not 0 <= count <= MOST_INDEXES:
        raise InvalidEvent(field="(body)", reason="does not begin with the index of its Protobuf message")
    indexes: list[int] = []
    for _ in range(count):
        index, at = _varint(body, at)
        indexes.append(index)
    return indexes or [0], body[at:]


def _varint(body: bytes, at: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 35, 7):
        if at >= len(body):
            break
        byte, at = body[at], at + 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (number >> 1) ^ -(number & 1), at
    raise InvalidEvent(field="(body)", reason="does not begin with the index of its Protobuf message")
