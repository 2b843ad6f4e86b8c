"""Who holds what after a rebalance: as aiokafka's coordinator asks the assignors."""

from __future__ import annotations

import time
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from aiokafka.errors import GroupAuthorizationFailedError
from tunewheel_contracts import topics
from tunewheel_contracts.errors import TransientError
from tunewheel_runtime.kafka_refusals import NotAllowed
from tunewheel_runtime.leadership import IncumbentAssignor, Leadership, LeadershipLost
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings


def member(since: int) -> type[IncumbentAssignor]:
    return type("Member", (IncumbentAssignor,), {"since": since})


def holder(**since: int) -> str:
    metadata = {name: member(at).metadata(["project.declared"]) for name, at in since.items()}
    assigned = IncumbentAssignor.assign(None, metadata)
    assert set(assigned) == set(since)
    (found,) = (name for name, given in assigned.items() if given.partitions())
    assert assigned[found].partitions() == [TopicPartition("project.declared", 0)]
    return found


def test_a_newcomer_waits_whatever_its_name() -> None:
    assert holder(a=5, b=0) == holder(a=5, z=0, c=0) == "a"
    assert holder(m=0, z=5) == "z"


def test_a_member_that_was_taken_for_dead_does_not_take_the_lead_back() -> None:
    assert holder(a=9, z=5) == "a"


def test_without_a_holder_one_is_chosen() -> None:
    assert holder(a=0, b=0) in {"a", "b"}


def test_each_group_of_a_service_claims_what_it_holds_itself(tmp_path: Any) -> None:
    """Or a rebalance moves running jobs for nothing."""
    made = Service("test", ServiceSettings(store_url=tmp_path.as_uri()))
    assignors: list[Any] = []
    register = made.subscriptions.broker.subscriber

    def subscriber(topic: str, **options: Any) -> Any:
        assignors.extend(options["partition_assignment_strategy"])
        return register(topic, **options)

    made.subscriptions.broker.subscriber = subscriber  # type: ignore[method-assign]

    @made.job(topics.TRAIN_COMPLETED)
    async def on_train_completed(event: Any, lease: Any) -> None: ...

    @made.on(topics.REVIEW_SUBMITTED)
    async def on_review_submitted(event: Any) -> None: ...

    jobs, reviews = assignors
    jobs.on_assignment(ConsumerProtocolMemberAssignment(0, [("train.completed", [0, 2])], b""))
    reviews.on_assignment(ConsumerProtocolMemberAssignment(0, [("review.submitted", [0])], b""))
    claimed = jobs.parse_member_metadata(jobs.metadata(["train.completed"]))
    assert claimed.partitions == [TopicPartition("train.completed", 0), TopicPartition("train.completed", 2)]


def test_a_former_active_process_is_stopped_before_it_publishes() -> None:
    told: list[BaseException] = []
    leadership = Leadership(ServiceSettings(), topics.PROJECT_DECLARED, group="test.active", lost=told.append)
    with pytest.raises(LeadershipLost):
        leadership.check()
    leadership.on_partitions_assigned([TopicPartition("project.declared", 0)])
    leadership.check()
    leadership.on_partitions_assigned([])
    with pytest.raises(LeadershipLost, match=r"test\.active"):
        leadership.check()
    assert len(told) == 1


async def test_an_active_process_that_may_no_longer_use_its_group_ends_by_the_name_of_the_right() -> None:
    told: list[BaseException] = []
    errors = [GroupAuthorizationFailedError("test.active")]  # asked once

    class Consumer:
        async def getmany(self, **_: Any) -> None:
            raise errors.pop()

    leadership = Leadership(ServiceSettings(), topics.PROJECT_DECLARED, group="test.active", lost=told.append)
    await leadership._poll(Consumer())  # type: ignore[arg-type]
    (refusal,) = told
    assert isinstance(refusal, NotAllowed)
    assert "does not let this client use group test.active: grant" in str(refusal)


async def test_a_process_that_hears_nothing_from_the_broker_for_a_session_writes_nothing(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have stalled, and another one may be active by now."""
    made = Service("test", ServiceSettings(store_url=tmp_path.as_uri()))
    made.one_at_a_time(topics.PROJECT_DECLARED)
    leadership, beats = made.leadership, [True, False]
    assert leadership is not None

    class Coordinator:
        async def _do_heartbeat(self) -> bool:
            return beats.pop()

    leadership._note_heartbeats(coordinator := Coordinator())
    leadership.on_partitions_assigned([TopicPartition("project.declared", 0)])
    made.require_active()
    monkeypatch.setattr(leadership, "_confirmed", time.monotonic() - 3_600)
    for confirmed in (False, True):
        with pytest.raises(TransientError, match=r"still the active one of test\.active"):
            made.require_active()
        assert await coordinator._do_heartbeat() is confirmed
    made.require_active()


def test_lost_leadership_drops_what_waits_and_stops_the_service(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, done = Service("test", ServiceSettings(store_url=tmp_path.as_uri())), list[str]()
    made.one_at_a_time(topics.PROJECT_DECLARED)
    assert made.leadership is not None
    monkeypatch.setattr(made.publisher, "drop", lambda: done.append("dropped"))
    made.leadership.on_partitions_assigned([TopicPartition("project.declared", 0)])
    made.leadership.on_partitions_assigned([])
    assert done == ["dropped"]
    assert isinstance(made.failure, LeadershipLost)
