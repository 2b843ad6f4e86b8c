"""How groups are asked about: what a broker answers while their coordinators move."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import GroupCoordinatorNotAvailableError, UnknownError
from tunewheel_local.connection import IncompatibleKafka, unreachable
from tunewheel_runtime import cluster
from tunewheel_runtime.cluster import admin_client, describe_cluster, describe_groups
from tunewheel_runtime.partitions import GROUPS_AT_ONCE, each

HOST = {"client_host": "/10.0.0.1"}


class Admin:
    """Answers about a group with each of ``codes`` in turn, and with its last one from then on. The first
    ``unfound`` questions for its coordinator fail."""

    def __init__(self, codes: Sequence[int], *, unfound: float = 0) -> None:
        self.codes = list(codes)
        self.unfound = unfound
        self.asked = 0

    async def find_coordinator(self, group: str) -> int:
        if self.unfound > 0:
            self.unfound -= 1
            raise GroupCoordinatorNotAvailableError
        return 1

    async def _send_request(self, request: Any, node: int) -> Admin:
        self.asked += 1
        return self

    def to_object(self) -> dict[str, Any]:
        code = self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]
        told = {"error_code": code, "group": "train.active", "authorized_operations": 0}
        return {"groups": [told | {"state": "" if code else "Stable", "members": [] if code else [HOST]}]}


@pytest.mark.parametrize("versions", [{}, {3: (0, 7)}])
async def test_a_kafka_that_speaks_only_older_requests_is_told_as_such(
    monkeypatch: pytest.MonkeyPatch, versions: dict[int, tuple[int, int]]
) -> None:
    class OldKafka:
        async def start(self) -> None: ...

        async def close(self) -> None: ...

        async def _send_request(self, request: Any) -> Any:
            return request.prepare(versions)  # as a connection does, with what its broker told

    monkeypatch.setattr("aiokafka.admin.AIOKafkaAdminClient", OldKafka)
    with pytest.raises(IncompatibleKafka, match=r"Metadata .*use Apache Kafka 3\.7 or later"):
        async with admin_client({}, explain=unreachable) as admin:
            await describe_cluster(admin, ["record.ingested"])


async def test_a_coordinator_that_moves_is_asked_again() -> None:
    admin = Admin([14, 15, 16, 0], unfound=2)
    seen = await describe_groups(admin, ["train.active"])
    assert seen["train.active"].hosts == ("10.0.0.1",)
    assert admin.asked == 4


async def test_a_group_that_no_broker_knows_is_not_taken_for_empty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cluster, "COORDINATOR_SECONDS", -1.0)
    with pytest.raises(GroupCoordinatorNotAvailableError):
        await describe_groups(Admin([15]), ["train.active"])
    with pytest.raises(GroupCoordinatorNotAvailableError):
        await describe_groups(Admin([0], unfound=math.inf), ["train.active"])
    with pytest.raises(UnknownError):
        await describe_groups(Admin([-1]), ["train.active"])
    hidden = await describe_groups(Admin([30]), ["train.active"])
    assert not hidden["train.active"].visible


async def test_so_many_groups_are_asked_about_at_a_time() -> None:
    running: list[int] = [0]
    most = 0

    async def ask(item: int) -> int:
        nonlocal most
        running[0] += 1
        most = max(most, running[0])
        await asyncio.sleep(0)
        running[0] -= 1
        return item

    assert await each(range(50), ask) == list(range(50))
    assert most == GROUPS_AT_ONCE
