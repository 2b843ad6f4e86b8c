"""Long work (jobs). A job runs under a lease, which it holds while its partition is assigned to this worker.

A handler may run for hours, while heartbeats go on in the background. When another worker joins, the
partition can move at once. Kafka does not tell the running handler, and its late commit raises no error. So
leases depend on the rebalance listener: after every assignment, a job whose partition is no longer assigned
here loses its lease. It must stop, and publishes nothing. In an eager rebalance all partitions are first
revoked and then assigned, so only the assignment matters, not the revocation.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from tunewheel_contracts.errors import InvalidEvent, TunewheelError
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TopicSpec

from tunewheel_runtime.consuming import Consumption, Delivery
from tunewheel_runtime.deadletter import undecoded
from tunewheel_runtime.handling import Handling, Outcome, Record
from tunewheel_runtime.publishing import Produced, as_list
from tunewheel_runtime.retry import retry
from tunewheel_runtime.waiting import first_of, within

log = structlog.get_logger(__name__)

LONGEST_JOB_MS = 7 * 86_400_000


class LeaseLost(TunewheelError):
    """The partition moved to another worker, or the service is stopping: checkpoint and stop."""


class Lease:
    """The right to work on one event while its partition is assigned to this worker."""

    Lost = LeaseLost

    def __init__(self, partition: tuple[str, int], offset: int = -1) -> None:
        self.partition = partition
        self.offset = offset
        """The event's offset."""
        self.lost = asyncio.Event()
        self.reason = ""

    def lose(self, reason: str) -> None:
        """Tell the job to stop. Repeated calls are harmless."""
        if not self.lost.is_set():
            self.reason = reason
            self.lost.set()

    def check(self) -> None:
        """Raise ``LeaseLost`` if the lease is lost."""
        if self.lost.is_set():
            raise LeaseLost(self.reason)

    async def pause(self, seconds: float) -> None:
        """Return after ``seconds``. Raises ``LeaseLost`` as soon as the lease is lost."""
        await within(seconds, self.lost.wait())
        self.check()


JobHandler = Callable[[Envelope[Any], Lease], Awaitable[Produced]]
Settle = Callable[[Record, AIOKafkaConsumer], Awaitable[None]]
"""Commits past a record whose job is done."""
Turn = Callable[[Record], Coroutine[Any, Any, None]]
"""Returns when the job of a record may begin."""


class LeaseListener(ConsumerRebalanceListener):
    """Revokes the leases of partitions that a new assignment does not include."""

    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._closed = ""

    def grant(self, partition: TopicPartition, offset: int) -> Lease:
        lease = Lease(partition, offset)
        if self._closed:
            lease.lose(self._closed)
        self._leases.add(lease)
        return lease

    def end(self, lease: Lease) -> None:
        self._leases.discard(lease)

    @property
    def running(self) -> int:
        """Number of jobs that are running, or waiting for their turn, in this process."""
        return len(self._leases)

    def close(self, reason: str) -> None:
        """Revoke every lease, including those granted from now on."""
        self._closed = reason
        for lease in self._leases:
            lease.lose(reason)

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Do nothing: an eager rebalance revokes all partitions, and most are assigned again."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        held = set(assigned)
        for lease in self._leases:
            if lease.partition not in held:
                log.warning("lease_lost", partition=str(lease.partition))
                lease.lose(f"{lease.partition} moved to another worker")


async def consume_job(
    consumption: Consumption,
    spec: TopicSpec,
    handler: JobHandler,
    listener: LeaseListener,
    record: Record,
    consumer: AIOKafkaConsumer,
    settle: Settle,
    turn: Turn | None = None,
) -> None:
    """Run the job of one record, once ``turn`` has returned. Publish its events only while the lease holds,
    then ``settle`` the record."""
    consumption.instruments.consumed.add(1, {"topic": spec.name})
    with consumption.instruments.handling(spec, [record]) as handling:
        try:
            delivery = consumption.decode(spec, record)
        except InvalidEvent as error:
            handling.outcome = Outcome.REFUSED
            await consumption.dead_letters.write(undecoded(record), error)
            await settle(record, consumer)
            return
        handling.is_of(delivery.event)
        partition = TopicPartition(record.topic, record.partition)
        lease = listener.grant(partition, record.offset)
        if partition not in consumer.assignment():
            lease.lose(f"{partition} moved to another worker")
        try:
            if turn is not None:
                await first_of(turn(record), lease.lost.wait())
            await _run(consumption, spec, handler, lease, record, delivery, handling)
            # Settle even if the service was told to stop meanwhile: the events are on the log already.
            await settle(record, consumer)
        except LeaseLost as error:
            if not lease.lost.is_set():
                raise
            handling.outcome = Outcome.STOPPED
            log.warning("job_stopped", topic=spec.name, event_id=delivery.event.id, reason=str(error))
        finally:
            listener.end(lease)


async def _run(
    consumption: Consumption,
    spec: TopicSpec,
    handler: JobHandler,
    lease: Lease,
    record: Record,
    delivery: Delivery[Any],
    handling: Handling,
) -> None:
    async def work() -> None:
        lease.check()
        produced = as_list(await handler(delivery.event, lease))
        lease.check()
        await consumption.publisher.publish_many(produced)

    try:
        await retry(work, consumption.backoff, what=f"job of {spec.name}")
    except InvalidEvent as error:
        handling.outcome = Outcome.REFUSED
        await consumption.dead_letters.write(undecoded(record), error, project=delivery.event.project)
    else:
        consumption.dead_letters.passed(spec.name, delivery.event.project)
