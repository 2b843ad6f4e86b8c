"""Elects the active process of a service: the group member that holds the first partition of a topic.

Kafka assigns a partition to one member of a group at a time, and takes it from a dead or stalled member after
the session time-out. The assignor leaves the partition with its holder as long as the holder lives, so a new
process waits.

A holder that stalled until another took over learns of it when it next reaches the broker, and a record of
its may be on the way then. So the active process publishes in transactions (``Publisher.fence``): Kafka
refuses all that an earlier holder still sends. ``check`` is for writes that Kafka does not see, to the store.
It makes the window for a stale write as short as possible, but does not close it; so such a write must be
harmless.
"""

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
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_contracts.topics import TopicSpec

from tunewheel_runtime.kafka import client_options, make_consumer, stop_consumer
from tunewheel_runtime.kafka_refusals import not_allowed
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.waiting import end_all

log = structlog.get_logger(__name__)


class LeadershipLost(TunewheelError):
    """Another process is active now, so this process's knowledge of the log may be outdated."""


class IncumbentAssignor(AbstractPartitionAssignor):
    """Assigns partition 0 to the member that holds it.

    If two members claim to hold it, the one that got it last keeps it: the other had stalled, was taken for
    dead, and does not know it. aiokafka keeps an assignor's state in its class, so each member needs a
    subclass of its own.
    """

    name = "incumbent"
    since: ClassVar[int] = 0
    """Time at which this member got the partition, in nanoseconds since 1970; 0: it does not hold it."""

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
        """Do nothing: the rebalance listener gets the same assignment and handles it."""


_SINCE = struct.Struct(">q")


class Leadership(ConsumerRebalanceListener):
    """The right to be the active process of ``group``. ``lost`` is called when another process gets it."""

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
        self._confirmed = 0.0
        """``time.monotonic()`` before the latest heartbeat or assignment that the broker confirmed."""
        self._told = False
        """Whether this member has got an assignment since it last joined the group."""
        self._assignor: type[IncumbentAssignor] = type("Assignor", (IncumbentAssignor,), {})
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
        """Whether another process is active, and this process waits for its end."""
        return self._told and not self.held

    def check(self) -> None:
        """Check that this process is active.

        Raises:
            LeadershipLost: this process has learnt that another one is active.
            TransientError: the broker has confirmed no heartbeat for a session, so another one may be active.
        """
        if not self.held:
            raise LeadershipLost(f"another process is active in {self._group} now")
        if time.monotonic() - self._confirmed > self._settings.session_timeout_ms / 1000:
            raise TransientError(f"cannot tell whether this process is still the active one of {self._group}")

    async def gain(self) -> None:
        """Return once this process is active, however long that takes."""
        session = self._settings.session_timeout_ms
        self._consumer = consumer = make_consumer(
            client_options(self._settings),
            group_id=self._group,
            auto_offset_reset="latest",
            session_timeout_ms=session,
            heartbeat_interval_ms=session // 4,
            partition_assignment_strategy=(self._assignor,),
        )
        consumer.subscribe([self._partition.topic], listener=self)
        await consumer.start()
        self._note_heartbeats(consumer._coordinator)
        self._polling = asyncio.create_task(self._poll(consumer), name="leadership")
        if not self.held:
            log.info("standing_by", group=self._group)
        await self._gained.wait()
        log.info("active", group=self._group)

    async def resign(self) -> None:
        """Leave the group, so that the next process becomes active at once. Repeated calls are harmless."""
        await end_all(self._polling)
        self._polling = None
        if self._consumer is not None:
            await stop_consumer(self._consumer)
            self._consumer = None
        self._give_up()

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Do nothing: an eager rebalance revokes all partitions, and most are assigned again."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._told = True
        self._confirmed = time.monotonic()
        if self._partition in assigned:
            self._assignor.since = self._assignor.since or time.time_ns()
            self._gained.set()
        elif self.held:
            self._give_up()
            self._lost(LeadershipLost(f"another process is active in {self._group} now"))

    def _note_heartbeats(self, coordinator: Any) -> None:
        """Note the time of each heartbeat that the broker confirms. aiokafka does not publish it."""
        beat = coordinator._do_heartbeat

        async def noted() -> bool:
            began = time.monotonic()
            confirmed = await beat()
            if confirmed:
                self._confirmed = began
            return confirmed

        coordinator._do_heartbeat = noted

    def _give_up(self) -> None:
        self._told = False
        self._assignor.since = 0
        self._gained.clear()

    async def _poll(self, consumer: AIOKafkaConsumer) -> None:
        """Poll, which a member must do to stay in the group. The records are ignored."""
        while True:
            try:
                await consumer.getmany(timeout_ms=1_000)
            except KafkaError as error:
                if refusal := not_allowed(error):  # aiokafka would not try again.
                    self._lost(refusal)
                    return
                log.warning("leadership_poll_failed", error=str(error))
                await asyncio.sleep(1.0)
