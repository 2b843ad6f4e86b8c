"""Who holds what after a rebalance: as aiokafka's coordinator asks the assignors."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment
from tunewheel_contracts import topics
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
    register = made.broker.subscriber

    def subscriber(topic: str, **options: Any) -> Any:
        assignors.extend(options["partition_assignment_strategy"])
        return register(topic, **options)

    made.broker.subscriber = subscriber  # type: ignore[method-assign]

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
