"""Which groups an installation has, and which services have no process."""

from __future__ import annotations

from typing import Any

from aiokafka import TopicPartition
from aiokafka.structs import OffsetAndMetadata
from tunewheel_cli.acls import SERVICES
from tunewheel_runtime.cluster import SeenGroup
from tunewheel_runtime.lag import committed_offsets, groups_of_services


def test_every_service_that_reads_by_groups_is_looked_for() -> None:
    groups = groups_of_services()
    assert {group.partition(".")[0] for group in groups} == set(SERVICES) - {"console"}
    assert groups["train.dataset-versioned"] == {"dataset.versioned"}
    assert groups["registry.active"] == {"project.declared"}


async def test_the_lag_of_other_groups_is_read_where_one_is_hidden() -> None:
    class Admin:
        async def list_consumer_group_offsets(self, name: str, coordinator: int) -> dict[TopicPartition, Any]:
            assert (name, coordinator) == ("train.dataset-versioned", 3)
            return {TopicPartition("dataset.versioned", 0): OffsetAndMetadata(5, "")}

    groups = {
        "train.dataset-versioned": SeenGroup(3, exists=True),
        "eval.train-completed": SeenGroup(visible=False),
    }
    assert await committed_offsets(Admin(), groups) == {
        "train.dataset-versioned": {("dataset.versioned", 0): 5}
    }
