"""Adds a prefix to the names of topics, groups and transactions, so that several installations can share a
broker.

All code uses the name in the topic's spec, which is also its ``ce_type``. The prefix is added where aiokafka
writes a request, and removed where it has read the answer. So no other code can forget it. Stored names
(source positions in dead letters, checkpoints) are the same under every prefix. Topics and groups of other
installations are removed from answers. See ``docs/adr/0042-names-are-prefixed-on-the-wire.md``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from aiokafka import conn
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.protocol.types import Array, Schema

PREFIX = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,98}[._-])?")
"""Pattern of a prefix. It must end in a separator; otherwise ``a`` + ``bc`` and ``ab`` + ``c`` would be the
same topic."""

Rename = Callable[[str], str]
Change = Callable[[Any, Mapping[str, Any], Rename], Any]
"""Returns a field's value with renamed names. Also gets the other fields of the same structure."""


class ClientId(str):
    """A client's ``client_id``. It carries the prefix, because aiokafka passes only the ``client_id`` on to
    each connection."""

    __slots__ = ("prefix",)
    prefix: str

    def __new__(cls, name: str, prefix: str) -> Self:
        made = super().__new__(cls, name)
        made.prefix = prefix
        return made


def client_id(name: str, prefix: str) -> str:
    """Return the ``client_id`` of a client whose topics and groups have ``prefix`` on the broker."""
    if not prefix:
        return name
    conn.AIOKafkaConnection = _Connection
    return ClientId(name, prefix)


class _Connection(conn.AIOKafkaConnection):
    """A connection that adds the prefix of its client, if it has one, to requests."""

    def send(self, request: Any, expect_response: bool = True) -> Any:
        prefix = getattr(self._client_id, "prefix", "")
        return super().send(Prefixed(request, prefix) if prefix else request, expect_response)


class Prefixed:
    """Wraps an aiokafka request. Names in the request get ``prefix``; it is removed from names in the
    answer."""

    def __init__(self, request: Any, prefix: str) -> None:
        self._request = request
        self._prefix = prefix

    def prepare(self, versions: Any) -> Any:
        """Return the request to write, in a version that the broker accepts. The answer is read in the same
        version."""
        written = self._request.prepare(versions)
        fields = _fields_of(written)
        for name, value in _renamed(written.SCHEMA, _values(written), fields, self._prefix.__add__).items():
            setattr(written, name, value)
        written.RESPONSE_TYPE = _Answer(written.RESPONSE_TYPE, fields, self._prefix)
        return written


class _Answer:
    """Reads an answer and removes the prefix. It takes the place of aiokafka's response class."""

    def __init__(self, kind: Any, fields: Mapping[str, Change], prefix: str) -> None:
        self._kind = kind
        self._fields = fields
        self._prefix = prefix

    def decode(self, data: Any) -> Any:
        answer = self._kind.decode(data)
        values = _renamed(self._kind.SCHEMA, _values(answer), self._fields, self._own_name)
        return self._kind(*values.values())

    def _own_name(self, name: str) -> str:
        if not name.startswith(self._prefix):
            raise _Foreign
        return name.removeprefix(self._prefix)


class _Foreign(Exception):
    """The name belongs to another installation."""


def _values(struct: Any) -> list[Any]:
    return [struct.get_item(name) for name in struct.SCHEMA.names]


def _renamed(
    schema: Schema, values: Sequence[Any], changes: Mapping[str, Change], rename: Rename
) -> dict[str, Any]:
    """Return the values by field, with names renamed. List items that belong to other installations are left
    out."""
    before = dict(zip(schema.names, values, strict=True))
    after: dict[str, Any] = {}
    for (name, value), kind in zip(before.items(), schema.fields, strict=True):
        if isinstance(kind, Array) and isinstance(kind.array_of, Schema) and value is not None:
            after[name] = _renamed_each(kind.array_of, value, changes, rename)
        elif name in changes and value is not None:
            after[name] = changes[name](value, before, rename)
        else:
            after[name] = value
    return after


def _renamed_each(
    schema: Schema, items: Sequence[Any], changes: Mapping[str, Change], rename: Rename
) -> list[Any]:
    kept: list[Any] = []
    for item in items:
        try:
            kept.append(tuple(_renamed(schema, item, changes, rename).values()))
        except _Foreign:
            continue
    return kept


def _name(value: Any, _: Mapping[str, Any], rename: Rename) -> Any:
    return rename(value) if isinstance(value, str) else [rename(name) for name in value]


def _subscription(value: bytes, _: Mapping[str, Any], rename: Rename) -> bytes:
    """Rename the topics in a member's subscription. The broker reads it too: it deletes offsets of topics to
    which no member is subscribed (KIP-496)."""
    metadata = ConsumerProtocolMemberMetadata.decode(value)
    topics = [rename(topic) for topic in metadata.subscription]
    return ConsumerProtocolMemberMetadata(metadata.version, topics, metadata.user_data).encode()


def _assignment(value: bytes, _: Mapping[str, Any], rename: Rename) -> bytes:
    """Rename the topics in a member's assignment, which tools display. It is empty for a member without
    partitions."""
    if not value:
        return value
    decoded = ConsumerProtocolMemberAssignment.decode(value)
    assigned = [(rename(topic), partitions) for topic, partitions in decoded.assignment]
    return ConsumerProtocolMemberAssignment(decoded.version, assigned, decoded.user_data).encode()


def _of_topic(value: str, beside: Mapping[str, Any], rename: Rename) -> str:
    """Rename a resource if it is a topic (Kafka's resource type 2)."""
    return rename(value) if beside["resource_type"] == 2 else value


_TOPIC = {"topic": _name}
_GROUP = {"group": _name}
_TRANSACTION = {"transactional_id": _name}
_OFFSETS = {"consumer_group": _name, "topic": _name}
_RESOURCE = {"resource_name": _of_topic}
_FIELDS: Mapping[int, Mapping[str, Change]] = {
    0: _TOPIC | _TRANSACTION,  # Produce
    1: _TOPIC | {"topics": _name},  # Fetch: in the answer a topic's field is called ``topics``
    2: _TOPIC,  # ListOffsets
    3: _TOPIC | {"topics": _name},  # Metadata
    8: _OFFSETS,  # OffsetCommit
    9: _OFFSETS,  # OffsetFetch
    10: {"consumer_group": _name, "coordinator_key": _name},  # FindCoordinator
    11: _GROUP | {"protocol_metadata": _subscription, "member_metadata": _subscription},  # JoinGroup
    12: _GROUP,  # Heartbeat
    13: _GROUP,  # LeaveGroup
    14: _GROUP | {"member_metadata": _assignment, "member_assignment": _assignment},  # SyncGroup
    15: _GROUP | {"groups": _name},  # DescribeGroups: the members' subscriptions are not used
    16: _GROUP,  # ListGroups
    17: {},  # SaslHandshake
    18: {},  # ApiVersions
    19: _TOPIC,  # CreateTopics
    20: _TOPIC | {"topics": _name},  # DeleteTopics
    21: {"name": _name},  # DeleteRecords
    22: _TRANSACTION,  # InitProducerId
    24: _TRANSACTION | _TOPIC,  # AddPartitionsToTxn
    26: _TRANSACTION,  # EndTxn
    32: _RESOURCE,  # DescribeConfigs
    36: {},  # SaslAuthenticate
    37: _TOPIC,  # CreatePartitions
    44: _RESOURCE,  # IncrementalAlterConfigs
}
"""By API key of Kafka's protocol: which fields hold names, in requests and in answers."""


def _fields_of(written: Any) -> Mapping[str, Change]:
    try:
        return _FIELDS[written.API_KEY]
    except KeyError:
        # Without renaming, the request would reach topics of another installation.
        raise NotImplementedError(
            f"{type(written).__name__}: list in {__name__} which of its fields hold names"
        ) from None
