"""Describes a Kafka cluster: topics with their replicas, groups with their members, and this client's rights
on each.

aiokafka 0.14 cannot ask for the allowed operations on topics (KIP-430). It also misreads answers about
several groups (version 3 of DescribeGroups by the schema of version 2). Both requests are therefore defined
here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tunewheel_contracts.errors import TunewheelError

from tunewheel_runtime.kafka_refusals import unreachable
from tunewheel_runtime.partitions import each

_OPERATIONS = {3: "Read", 4: "Write", 5: "Create", 6: "Delete", 7: "Alter", 8: "Describe", 11: "AlterConfigs"}
"""Kafka protocol, ``AclOperation``: the operations of ``acls`` by their bit."""
_NOT_TOLD = -(1 << 31)
_TOPIC_NOT_ALLOWED, _GROUP_NOT_ALLOWED = 29, 30
"""Kafka protocol, error codes TOPIC_AUTHORIZATION_FAILED and GROUP_AUTHORIZATION_FAILED."""
_COORDINATOR_MOVES = frozenset({14, 15, 16})
"""COORDINATOR_LOAD_IN_PROGRESS, COORDINATOR_NOT_AVAILABLE and NOT_COORDINATOR: a retry may succeed."""
_MOVES = -1
COORDINATOR_SECONDS = 20.0
"""A new cluster creates the topic of group offsets at the first request for a coordinator."""

Explain = Callable[[Mapping[str, Any], Exception], Awaitable[TunewheelError]]
"""Returns the error to report where Kafka does not answer, refuses, or is too old."""
Operations = frozenset[str] | None
"""The operations that this client may do; None: the broker does not tell."""


@dataclass(frozen=True, slots=True)
class Copies:
    """The replicas of one partition: its leader (-1: none), the brokers with a replica, and those in sync."""

    leader: int
    replicas: tuple[int, ...]
    in_sync: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SeenTopic:
    exists: bool
    visible: bool = True
    """False: this client may not see the topic, so it is not known whether it exists."""
    partitions: tuple[Copies, ...] = ()
    operations: Operations = None


@dataclass(frozen=True, slots=True)
class Cluster:
    brokers: Mapping[int, str]
    """The advertised host:port of each broker."""
    topics: Mapping[str, SeenTopic]
    apis: Mapping[int, tuple[int, int]]
    """By API key of the Kafka protocol, the versions that a broker supports."""


@dataclass(frozen=True, slots=True)
class SeenGroup:
    coordinator: int = -1
    exists: bool = False
    visible: bool = True
    """False: this client may not see the group."""
    hosts: tuple[str, ...] = ()
    """The hosts of its members, one per member."""
    operations: Operations = None


@asynccontextmanager
async def admin_client(options: Mapping[str, Any], *, explain: Explain = unreachable) -> AsyncGenerator[Any]:
    """Connect an ``AIOKafkaAdminClient``, and turn its errors into ours by ``explain``.

    Raises:
        TransientError: no Kafka answers, now or while the client is in use.
        TunewheelError: what else ``explain`` makes of an error.
        NotAllowed: the broker does not allow a request.
    """
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    admin = AIOKafkaAdminClient(**options)
    try:
        await admin.start()
        yield admin
    except (KafkaError, OSError, NotImplementedError) as error:
        raise await explain(options, error) from error
    finally:
        await admin.close()


async def describe_cluster(admin: Any, names: Sequence[str]) -> Cluster:
    """Return the brokers and the topics called ``names``; ``admin`` is a started client."""
    answer = (await admin._send_request(_metadata_request(list(names)))).to_object()
    topics = {topic["topic"]: _topic(topic) for topic in answer["topics"]}
    brokers = {broker["node_id"]: f"{broker['host']}:{broker['port']}" for broker in answer["brokers"]}
    apis = next((conn._versions for conn in admin._client._conns.values() if conn._versions), {})
    return Cluster(brokers, {name: topics.get(name, SeenTopic(False)) for name in names}, dict(apis))


def _topic(topic: Mapping[str, Any]) -> SeenTopic:
    partitions = tuple(
        Copies(one["leader"], tuple(one["replicas"]), tuple(one["isr"])) for one in topic["partitions"]
    )
    code = topic["error_code"]
    return SeenTopic(
        bool(partitions), code != _TOPIC_NOT_ALLOWED, partitions, _named(topic["authorized_operations"])
    )


async def describe_groups(admin: Any, names: Sequence[str]) -> dict[str, SeenGroup]:
    """Return the groups called ``names``, including those that do not exist or that this client may not
    see."""
    deadline = time.monotonic() + COORDINATOR_SECONDS
    seen: dict[str, SeenGroup] = {}
    while moving := [name for name in names if name not in seen]:
        seen |= await _groups(admin, moving, is_last=time.monotonic() > deadline)
        if len(seen) < len(names):
            await asyncio.sleep(0.1)
    return {name: seen[name] for name in names}


async def _groups(admin: Any, names: Sequence[str], *, is_last: bool) -> dict[str, SeenGroup]:
    """Return the groups of ``names`` whose coordinators answer. ``is_last``: raise if one does not."""
    from aiokafka.errors import for_code

    coordinators = await each(names, lambda name: _coordinator(admin, name, is_last=is_last))
    by_node: dict[int, list[str]] = {}
    seen: dict[str, SeenGroup] = {}
    for name, node in zip(names, coordinators, strict=True):
        if node is None:
            seen[name] = SeenGroup(visible=False)
        elif node != _MOVES:
            by_node.setdefault(node, []).append(name)
    for node, own in by_node.items():
        answer = (await admin._send_request(_groups_request(own), node)).to_object()
        for group in answer["groups"]:
            code = group["error_code"]
            if code in _COORDINATOR_MOVES and not is_last:
                continue
            if code not in (0, _GROUP_NOT_ALLOWED):
                raise for_code(code)(group["group"])
            seen[group["group"]] = _group(group, node)
    return seen


async def _coordinator(admin: Any, group: str, *, is_last: bool) -> int | None:
    """Return the coordinator of ``group``. None: this client may not know it. ``_MOVES``: there is none yet,
    and ``is_last`` is False."""
    from aiokafka.errors import (
        CoordinatorLoadInProgressError,
        CoordinatorNotAvailableError,
        GroupAuthorizationFailedError,
    )

    try:
        return await admin.find_coordinator(group)
    except GroupAuthorizationFailedError:
        return None
    except (CoordinatorNotAvailableError, CoordinatorLoadInProgressError):
        if is_last:
            raise
        return _MOVES


def _group(group: Mapping[str, Any], node: int) -> SeenGroup:
    hosts = tuple(sorted(member["client_host"].removeprefix("/") for member in group["members"]))
    visible = group["error_code"] != _GROUP_NOT_ALLOWED
    exists = visible and group["state"] not in ("", "Dead")
    return SeenGroup(node, exists, visible, hosts, _named(group["authorized_operations"]))


def _named(bits: int) -> Operations:
    if bits == _NOT_TOLD:
        return None
    return frozenset(name for bit, name in _OPERATIONS.items() if bits & 1 << bit)


def _metadata_request(names: list[str]) -> Any:
    from aiokafka.protocol.api import Request, RequestStruct, Response
    from aiokafka.protocol.types import Array, Boolean, Int16, Int32, Schema, String

    text = String("utf-8")
    partition = Array(
        ("error_code", Int16), ("partition", Int32), ("leader", Int32), ("leader_epoch", Int32),
        ("replicas", Array(Int32)), ("isr", Array(Int32)), ("offline_replicas", Array(Int32)),
    )  # fmt: skip
    topic = Array(
        ("error_code", Int16), ("topic", text), ("is_internal", Boolean), ("partitions", partition),
        ("authorized_operations", Int32),
    )  # fmt: skip

    class ResponseV8(Response):
        API_KEY = 3
        API_VERSION = 8
        SCHEMA = Schema(
            ("throttle_time_ms", Int32),
            ("brokers", Array(("node_id", Int32), ("host", text), ("port", Int32), ("rack", text))),
            ("cluster_id", text), ("controller_id", Int32), ("topics", topic),
            ("cluster_operations", Int32),
        )  # fmt: skip

    class RequestV8(RequestStruct):
        API_KEY = 3
        API_VERSION = 8
        RESPONSE_TYPE = ResponseV8
        SCHEMA = Schema(
            ("topics", Array(text)), ("allow_auto_topic_creation", Boolean),
            ("include_cluster_operations", Boolean), ("include_topic_operations", Boolean),
        )  # fmt: skip

    class Metadata(Request[RequestV8]):
        API_KEY = 3

        def build(self, request_struct_class: type[RequestV8]) -> RequestV8:
            return request_struct_class(names, False, False, True)

    return Metadata()


def _groups_request(names: list[str]) -> Any:
    from aiokafka.protocol.admin import DescribeGroupsResponse_v3
    from aiokafka.protocol.api import Request, RequestStruct
    from aiokafka.protocol.types import Array, Boolean, Schema, String

    class RequestV3(RequestStruct):
        API_KEY = 15
        API_VERSION = 3
        RESPONSE_TYPE = DescribeGroupsResponse_v3
        SCHEMA = Schema(("groups", Array(String("utf-8"))), ("include_operations", Boolean))

    class DescribeGroups(Request[RequestV3]):
        API_KEY = 15

        def build(self, request_struct_class: type[RequestV3]) -> RequestV3:
            return request_struct_class(names, True)

    return DescribeGroups()
