"""The prefix of topics and groups: in every request that aiokafka writes, in no answer that it reads."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import conn, protocol
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.protocol.admin import (
    AlterPartitionReassignmentsRequest,
    ApiVersionRequest,
    DescribeConfigsRequest,
    DescribeConfigsResponse_v0,
    ListGroupsRequest,
    ListGroupsResponse_v0,
)
from aiokafka.protocol.api import RequestStruct, Response
from aiokafka.protocol.commit import OffsetCommitRequest
from aiokafka.protocol.coordination import FindCoordinatorRequest
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest
from aiokafka.protocol.metadata import MetadataRequest, MetadataResponse_v0
from aiokafka.protocol.transaction import AddPartitionsToTxnRequest, EndTxnRequest, InitProducerIdRequest
from aiokafka.protocol.types import Array, Schema, String
from pydantic import ValidationError
from tunewheel_runtime.kafka import client_options
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.process import wrong_settings
from tunewheel_runtime.topic_names import _FIELDS, Prefixed, _Connection, client_id

OURS = "acme."


def written(request: Any, version: int = 0) -> Any:
    return Prefixed(request, OURS).prepare({request.API_KEY: (version, version)})


def test_a_request_names_topics_and_groups_as_the_broker_does() -> None:
    assert written(MetadataRequest(["ticket.published"])).topics == ["acme.ticket.published"]
    assert written(MetadataRequest(None), 1).topics is None, "all topics stays all topics"
    assert written(FindCoordinatorRequest("ingest.x", 0), 1).coordinator_key == "acme.ingest.x"
    assert written(FindCoordinatorRequest("registry.active", 1), 1).coordinator_key == "acme.registry.active"
    assert written(InitProducerIdRequest("registry.active", 1_000)).transactional_id == "acme.registry.active"
    added = written(AddPartitionsToTxnRequest("registry.active", 7, 0, [("model.promoted", [0])]))
    assert (added.transactional_id, added.topics) == ("acme.registry.active", [("acme.model.promoted", [0])])
    assert written(EndTxnRequest("registry.active", 7, 0, True)).transactional_id == "acme.registry.active"
    assert written(InitProducerIdRequest(None, 1_000)).transactional_id is None
    offsets = [("ticket.published", [(0, 7, "")])]
    commit = written(OffsetCommitRequest("ingest.x", 1, "member", -1, offsets), 2)
    assert (commit.consumer_group, commit.consumer_id) == ("acme.ingest.x", "member")
    assert commit.topics == [("acme.ticket.published", [(0, 7, "")])]
    assert offsets == [("ticket.published", [(0, 7, "")])], "what the caller keeps is not touched"
    configs = written(DescribeConfigsRequest([(2, "ticket.published", None), (4, "1", None)]))
    assert [resource[1] for resource in configs.resources] == ["acme.ticket.published", "1"]


def test_a_member_of_a_group_subscribes_and_is_assigned_the_broker_s_names() -> None:
    told = ConsumerProtocolMemberMetadata(0, ["ticket.published"], b"own").encode()
    join = written(JoinGroupRequest("ingest.x", 1, 1, "", None, "consumer", [("sticky", told)]), 2)
    subscribed = ConsumerProtocolMemberMetadata.decode(join.group_protocols[0][1])
    assert (join.group, subscribed.subscription) == ("acme.ingest.x", ["acme.ticket.published"])
    assert subscribed.user_data == b"own"
    given = ConsumerProtocolMemberAssignment(0, [("ticket.published", [0, 2])], b"").encode()
    sync = written(SyncGroupRequest("ingest.x", 1, "m", None, [("m", given), ("idle", b"")]), 1)
    assigned = ConsumerProtocolMemberAssignment.decode(sync.group_assignment[0][1])
    assert (assigned.assignment, sync.group_assignment[1]) == (
        [("acme.ticket.published", [0, 2])],
        ("idle", b""),
    )
    answer = sync.RESPONSE_TYPE._kind(0, 0, assigned.encode()).encode()
    back = ConsumerProtocolMemberAssignment.decode(sync.RESPONSE_TYPE.decode(answer).member_assignment)
    assert back.assignment == [("ticket.published", [0, 2])]


def test_an_answer_names_them_as_the_specs_do_and_leaves_those_of_others_out() -> None:
    broker = [(1, "kafka", 9092)]
    topics = [(0, name, []) for name in ("acme.ticket.published", "ticket.published", "other.x")]
    request = written(MetadataRequest([]))
    told = request.RESPONSE_TYPE.decode(MetadataResponse_v0(broker, topics).encode())
    assert (told.brokers, told.topics) == (broker, [(0, "ticket.published", [])])
    groups = written(ListGroupsRequest())
    raw = ListGroupsResponse_v0(0, [("acme.ingest.x", "consumer"), ("ingest.x", "consumer")]).encode()
    assert groups.RESPONSE_TYPE.decode(raw).groups == [("ingest.x", "consumer")]
    configs = written(DescribeConfigsRequest([(2, "ticket.published", None)]))
    raw = DescribeConfigsResponse_v0(0, [(0, None, 2, "acme.ticket.published", [])]).encode()
    assert configs.RESPONSE_TYPE.decode(raw).resources == [(0, None, 2, "ticket.published", [])]


def leaves(schema: Schema) -> Iterator[str]:
    """Yield the names of fields that hold text or lists of texts."""
    for name, kind in zip(schema.names, schema.fields, strict=True):
        inner = kind.array_of if isinstance(kind, Array) else kind
        if isinstance(inner, Schema):
            yield from leaves(inner)
        elif isinstance(inner, String):
            yield name


def test_no_field_with_a_name_is_forgotten() -> None:
    """Whatever aiokafka can ask by the APIs that are let through, in all their versions."""
    naming = {"topic", "topics", "name", "group", "groups", "group_id", "consumer_group", "resource_name",
              "coordinator_key", "groups_names", "transactional_id"}  # fmt: skip
    found: set[tuple[int, str]] = set()
    for module in pkgutil.iter_modules(protocol.__path__):
        for kind in vars(importlib.import_module(f"aiokafka.protocol.{module.name}")).values():
            if isinstance(kind, type) and issubclass(kind, RequestStruct | Response):
                key = getattr(kind, "API_KEY", None)
                if isinstance(key, int) and key in _FIELDS:
                    found |= {(key, name) for name in leaves(kind.SCHEMA) if name in naming}
    assert len(found) > 20
    assert {(key, name) for key, name in found if name not in _FIELDS[key]} == set()


def test_an_api_of_which_nobody_said_what_it_names_is_not_used() -> None:
    request = AlterPartitionReassignmentsRequest(1_000, [("ticket.published", [(0, [1], {})], {})], {})
    with pytest.raises(NotImplementedError, match=r"list in .*topic_names which"):
        written(request)
    assert written(ApiVersionRequest()).API_KEY == 18
    fetch = written(FetchRequest(100, 1, 1 << 20, 0, [("ticket.published", [(0, 5, 1 << 20)])]), 3)
    assert fetch.topics == [("acme.ticket.published", [(0, 5, 1 << 20)])]


async def test_the_prefix_reaches_each_connection_of_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    (plain,) = _Connection.__bases__
    monkeypatch.setattr(plain, "send", lambda _self, request, _expect=True: sent.append(request))
    monkeypatch.setattr(conn, "AIOKafkaConnection", plain)
    told = client_options(KafkaSettings(topic_prefix=OURS))["client_id"]
    assert (told, type(client_id("tunewheel", ""))) == ("tunewheel", str)
    for one in (told, client_id("tunewheel", "")):
        conn.AIOKafkaConnection("kafka", 9092, client_id=one).send(MetadataRequest(["a"]))
    first, second = (request.prepare({3: (0, 0)}).topics for request in sent)
    assert (first, second) == (["acme.a"], ["a"])


@pytest.mark.parametrize("prefix", ["acme", "a b.", ".acme.", "-", "a" * 100 + ".", "acme/"])
def test_a_prefix_that_could_join_two_names_or_that_kafka_refuses_is_refused(prefix: str) -> None:
    with pytest.raises(ValidationError) as wrong:
        KafkaSettings(topic_prefix=prefix)
    ((field, reason),) = wrong_settings(wrong.value)
    assert (field, "such as acme." in reason) == ("topic_prefix", True)
    assert KafkaSettings(topic_prefix="team-7_x.").topic_prefix == "team-7_x."
