"""One active process of a service: the group member that holds the first partition of a topic.

Kafka gives a partition to one member of a group at a time, and takes it from one that is dead or stalled
after the session time-out. The assignor leaves it where it is for as long as its holder lives, so that a
newcomer waits. A holder that stalled until another took over is told when it next reaches the broker; until
then it may still publish what it was at. ``check`` right before a publish leaves that moment and no more.
What services do under a leadership must bear it: events named by their causes, and records that are created
once, do.
"""

# aiokafka has no type stubs.
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import KafkaError
from tunewheel_contracts.errors import TunewheelError
from tunewheel_contracts.topics import TopicSpec

from tunewheel_runtime.kafka import client_options, stop_consumer
from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.settings import ServiceSettings

log = structlog.get_logger(__name__)


class LeadershipLost(TunewheelError):
    """Another process is the active one now: what this one knows of the log may be out of date."""


class IncumbentAssignor(AbstractPartitionAssignor):
    """Gives partition 0 to the member that holds it; of two that say so, to the one that came to it last: the
    other stalled, was taken for dead, and does not know it. aiokafka keeps an assignor's state in its class,
    so each member takes a subclass of its own.
    """

    name = "incumbent"  # pyright: ignore[reportIncompatibleMethodOverride, reportAssignmentType]
    since: ClassVar[int] = 0
    """Nanoseconds since the epoch; 0: does not hold it."""

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        return ConsumerProtocolMemberMetadata(0, list(topics), _SINCE.pack(cls.since))

    @classmethod
    def assign(cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]) -> dict[str, Any]:
        chosen = max(members, key=lambda member: (_SINCE.unpack(members[member].user_data)[0], member))
        given = {member: [] for member in members} | {
            chosen: [(topic, [0]) for topic in members[chosen].subscription]
        }
        return {m: ConsumerProtocolMemberAssignment(0, held, b"") for m, held in given.items()}

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """The listener is told as well, and knows what to make of it."""


_SINCE = struct.Struct(">q")


class Leadership(ConsumerRebalanceListener):
    """The right to be the active process of ``group``. ``lost`` is called when it went to another."""

    def __init__(
        self,
        settings: ServiceSettings,
        topic: TopicSpec,
        *,
        group: str,
        lost: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._partition = TopicPartition(topic.name, 0)
        self._group = group
        self._lost = lost
        self._gained = asyncio.Event()
        self._told = False
        """The group has said who is active."""
        self._assignor = type("Assignor", (IncumbentAssignor,), {})
        self._consumer: AIOKafkaConsumer | None = None
        self._polling: asyncio.Task[None] | None = None

    @property
    def group(self) -> tuple[str, str]:
        """The consumer group and its topic."""
        return self._group, self._partition.topic

    @property
    def held(self) -> bool:
        return self._gained.is_set()

    @property
    def stands_by(self) -> bool:
        """Whether another process is the active one, and this one waits for its end."""
        return self._told and not self.held

    def check(self) -> None:
        """Raise ``LeadershipLost`` if this process was told that another is the active one."""
        if not self.held:
            raise LeadershipLost(f"another process is the active one of {self._group} now")

    async def gain(self) -> None:
        """Return once this process is the active one, however long that takes."""
        session = self._settings.session_timeout_ms
        self._consumer = consumer = AIOKafkaConsumer(
            **client_options(self._settings),
            group_id=self._group,
            enable_auto_commit=False,
            auto_offset_reset="latest",
            session_timeout_ms=session,
            heartbeat_interval_ms=session // 4,
            partition_assignment_strategy=(self._assignor,),
        )
        consumer.subscribe([self._partition.topic], listener=self)
        await consumer.start()
        self._polling = asyncio.create_task(self._poll(consumer), name="leadership")
        if not self.held:
            log.info("standing_by", group=self._group)
        await self._gained.wait()
        log.info("active", group=self._group)

    async def resign(self) -> None:
        """Let the next process in at once; harmless when repeated."""
        if self._polling is not None:
            self._polling.cancel()
            await asyncio.gather(self._polling, return_exceptions=True)
            self._polling = None
        if self._consumer is not None:
            await stop_consumer(self._consumer)
            self._consumer = None
        self._give_up()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing yet: an eager rebalance revokes everything, and most comes back."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._told = True
        if self._partition in assigned:
            self._assignor.since = self._assignor.since or time.time_ns()
            self._gained.set()
        elif self.held:
            self._give_up()
            self._lost(LeadershipLost(f"another process is the active one of {self._group} now"))

    def _give_up(self) -> None:
        self._told = False
        self._assignor.since = 0
        self._gained.clear()

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        """Poll, as every member must to stay one; what comes is of no interest."""
        while True:
            try:
                await consumer.getmany(timeout_ms=1_000)
            except KafkaError as error:
                if refusal := not_allowed(error):  # aiokafka would not ask again
                    self._lost(refusal)
                    return
                log.warning("leadership_poll_failed", error=str(error))
                await asyncio.sleep(1.0)
