"""What topics and consumer groups are called on a broker that several installations share: a prefix of this
installation's own, then the name that the specs give them.

All code calls a topic as its spec does, which is its ``ce_type`` too. The prefix is put before a name where
aiokafka writes a request, and taken away where it has read the answer. No code between the two can forget it,
and what is kept (source positions in dead letters, checkpoints) is the same under every prefix. Topics and
groups of others are left out of answers. See ``docs/adr/0042-names-are-prefixed-on-the-wire.md``.
"""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from aiokafka import conn
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.protocol.types import Array, Schema

PREFIX = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,98}[._-])?")
"""It ends in a separator: else ``a`` + ``bc`` and ``ab`` + ``c`` would be one topic."""

Rename = Callable[[str], str]
Change = Callable[[Any, Mapping[str, Any], Rename], Any]
"""Returns a field's value under other names; told the fields beside it."""


class ClientId(str):
    """What a client calls itself to a broker. It is all that aiokafka hands down to each connection, so that
    it carries the prefix there."""

    __slots__ = ("prefix",)
    prefix: str

    def __new__(cls, name: str, prefix: str) -> Self:
        made = super().__new__(cls, name)
        made.prefix = prefix
        return made


def client_id(name: str, prefix: str) -> str:
    """Return the ``client_id`` of a client whose topics and groups bear ``prefix`` on the broker."""
    if not prefix:
        return name
    conn.AIOKafkaConnection = _Connection
    return ClientId(name, prefix)


class _Connection(conn.AIOKafkaConnection):
    """Puts the prefix of its client, where that has one, on the wire."""

    def send(self, request: Any, expect_response: bool = True) -> Any:
        prefix = getattr(self._client_id, "prefix", "")
        return super().send(Prefixed(request, prefix) if prefix else request, expect_response)


class Prefixed:
    """A request of aiokafka whose names bear ``prefix``; those of its answer are as in the specs."""

    def __init__(self, request: Any, prefix: str) -> None:
        self._request = request
        self._prefix = prefix

    def prepare(self, versions: Any) -> Any:
        """Return what is written, in the version that the broker takes. Its answer is read by the same."""
        written = self._request.prepare(versions)
        fields = _fields_of(written)
        for name, value in _renamed(written.SCHEMA, _values(written), fields, self._prefix.__add__).items():
            setattr(written, name, value)
        written.RESPONSE_TYPE = _Answer(written.RESPONSE_TYPE, fields, self._prefix)
        return written


class _Answer:
    """Reads an answer and takes the prefix away; stands where aiokafka has the answer's class."""

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
    """The name is of another installation."""


def _values(struct: Any) -> list[Any]:
    return [struct.get_item(name) for name in struct.SCHEMA.names]


def _renamed(
    schema: Schema, values: Sequence[Any], changes: Mapping[str, Change], rename: Rename
) -> dict[str, Any]:
    """Return the values by field, under other names; what is in lists and not ours is left out."""
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
    """What a member of a group wants to read. The broker reads it too: it forgets offsets of topics that no
    member names (KIP-496)."""
    told = ConsumerProtocolMemberMetadata.decode(value)
    topics = [rename(topic) for topic in told.subscription]
    return ConsumerProtocolMemberMetadata(told.version, topics, told.user_data).encode()


def _assignment(value: bytes, _: Mapping[str, Any], rename: Rename) -> bytes:
    """What a member of a group is to read, as tools show it; empty for a member that is given nothing."""
    if not value:
        return value
    told = ConsumerProtocolMemberAssignment.decode(value)
    given = [(rename(topic), partitions) for topic, partitions in told.assignment]
    return ConsumerProtocolMemberAssignment(told.version, given, told.user_data).encode()


def _of_topic(value: str, beside: Mapping[str, Any], rename: Rename) -> str:
    """A resource of any kind, by Kafka's numbers: 2 is a topic."""
    return rename(value) if beside["resource_type"] == 2 else value


def _of_group(value: str, beside: Mapping[str, Any], rename: Rename) -> str:
    """What a coordinator is looked for: 0 is a group, else a transaction, whose names we do not make."""
    return rename(value) if beside["coordinator_type"] == 0 else value


_TOPIC = {"topic": _name}
_GROUP = {"group": _name}
_OFFSETS = {"consumer_group": _name, "topic": _name}
_RESOURCE = {"resource_name": _of_topic}
_FIELDS: Mapping[int, Mapping[str, Change]] = {
    0: _TOPIC,  # Produce
    1: _TOPIC | {"topics": _name},  # Fetch: the answer calls a topic ``topics``
    2: _TOPIC,  # ListOffsets
    3: _TOPIC | {"topics": _name},  # Metadata
    8: _OFFSETS,  # OffsetCommit
    9: _OFFSETS,  # OffsetFetch
    10: {"consumer_group": _name, "coordinator_key": _of_group},  # FindCoordinator
    11: _GROUP | {"protocol_metadata": _subscription, "member_metadata": _subscription},  # JoinGroup
    12: _GROUP,  # Heartbeat
    13: _GROUP,  # LeaveGroup
    14: _GROUP | {"member_metadata": _assignment, "member_assignment": _assignment},  # SyncGroup
    15: _GROUP | {"groups": _name},  # DescribeGroups: of its members nobody reads what they subscribe to
    16: _GROUP,  # ListGroups
    17: {},  # SaslHandshake
    18: {},  # ApiVersions
    19: _TOPIC,  # CreateTopics
    20: _TOPIC | {"topics": _name},  # DeleteTopics
    21: {"name": _name},  # DeleteRecords
    22: {},  # InitProducerId
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
        # Sent as it is, it would reach topics of another installation.
        raise NotImplementedError(
            f"{type(written).__name__}: say in {__name__} which of its fields hold names"
        ) from None
