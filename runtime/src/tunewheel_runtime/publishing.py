"""Publishes events to Kafka."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)
from aiokafka.protocol.metadata import MetadataRequest
from opentelemetry import metrics
from opentelemetry.trace import SpanKind
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, KafkaRecord
from tunewheel_contracts.topics import BY_NAME, DEAD_LETTER_OVERHEAD, MAX_MESSAGE_BYTES

from tunewheel_runtime.kafka import client_options, producer_options
from tunewheel_runtime.kafka_refusals import not_allowed, why_unreachable
from tunewheel_runtime.leadership import LeadershipLost
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.telemetry import Telemetry, inject

log = structlog.get_logger(__name__)
Produced = Envelope[Any] | Iterable[Envelope[Any]] | None
_ABORTED = (
    KafkaTimeoutError, MessageSizeTooLargeError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError
)  # fmt: skip
"""Errors after which aiokafka can go on with a new transaction."""


@dataclass(frozen=True, slots=True)
class Tombstone:
    """A null record that deletes ``key`` from a compacted topic."""

    topic: str
    key: bytes


class Publisher:
    """One idempotent producer. When a publish returns, all replicas have acknowledged the event. With a
    ``transactional_id`` each publish is a transaction, and ``fence`` must come first."""

    def __init__(self, settings: ServiceSettings, telemetry: Telemetry) -> None:
        self._settings = settings
        self._tracer = telemetry.tracer
        self._producer: AIOKafkaProducer | None = None
        self._closing: asyncio.Task[None] | None = None
        self.transactional_id: str | None = None
        self.lost: Callable[[LeadershipLost], None] = lambda _: None
        """Called when Kafka accepts no transaction of this process any more."""
        self.sign: Callable[[Envelope[Any]], Envelope[Any]] = lambda event: event
        """Signs an event that is a command; called for every event that leaves the service."""
        self.seal: Callable[[Sequence[KafkaRecord | Tombstone]], None] = lambda _: None
        """Adds signatures to the headers of upstream data; called for all records that leave the service."""
        self._transacting = asyncio.Lock()
        self._published: metrics.Counter = telemetry.meter.create_counter(
            "tunewheel.events.published", description="Events acknowledged by the broker, by topic"
        )

    async def start(self) -> None:
        # Dead letters are larger than the messages in them. Other topics refuse messages that are too large.
        largest = MAX_MESSAGE_BYTES + DEAD_LETTER_OVERHEAD
        options = producer_options(self._settings, max_message_bytes=largest)
        producer = AIOKafkaProducer(**options, transactional_id=self.transactional_id)
        try:
            await (producer.start() if self.transactional_id is None else producer.client.bootstrap())
        except BaseException as error:
            await producer.stop()
            if isinstance(error, KafkaConnectionError):
                # This is a service's first connection; later ones would fail for the same reason.
                reason = await why_unreachable(client_options(self._settings))
                raise TransientError(f"no connection to Kafka: {reason}") from error
            raise
        self._producer = producer

    async def fence(self) -> None:
        """Take over the transactional id, and return once no event of an earlier owner can still appear: its
        open transaction was aborted, or was committed before. Read the log after this, and decide after that.
        Raises KafkaError: this client may not use the transactional id."""
        if self._producer is not None and self.transactional_id is not None:
            await self._producer._sender.start()

    async def stop(self) -> None:
        """Send waiting records and stop. Waits at most as long as a publish may take; in an outage it would
        otherwise wait for the broker."""
        if self._closing is not None:
            await self._closing
        if self._producer is None:
            return
        producer, self._producer = self._producer, None
        try:
            async with asyncio.timeout(self._settings.publish_seconds):
                await producer.stop()
        except TimeoutError:
            log.warning("stopped_unacknowledged")
            await producer.client.close()

    def drop(self) -> None:
        """Stop without sending the records that wait, and without sending any record again.

        Only bytes that the operating system has taken over may still reach the broker. Without its task the
        sender fetches no waiting batch, and a request that waits for a connection gets none.
        """
        if self._producer is None:
            return
        producer, self._producer = self._producer, None
        producer._closed = True
        producer.client.ready = _never_ready
        if sender := producer._sender.sender_task:
            sender.cancel()
        for connection in producer.client._conns.values():
            if connection._writer is not None:
                connection._writer.transport.abort()
        self._closing = asyncio.create_task(producer.client.close(), name="drop")

    async def reach(self) -> None:
        """Return once a broker has answered. Raises TransientError: no broker answers."""
        if self._producer is None:
            raise TransientError("the broker is not connected yet")
        client = self._producer.client
        nodes = [broker.nodeId for broker in client.cluster.brokers()]
        for node in random.sample(nodes, len(nodes)):  # In random order, since a broker may hang.
            with contextlib.suppress(KafkaError):
                await client.send(node, MetadataRequest([], allow_auto_topic_creation=False))
                return
        raise TransientError("no broker answers")

    async def publish(self, envelope: Envelope[Any]) -> None:
        """Publish one event and wait for it to be acknowledged.

        Raises:
            InvalidEvent: the event is larger than the topic accepts.
            TransientError: the broker cannot be reached.
        """
        await self.publish_many([envelope])

    async def publish_many(self, envelopes: Sequence[Envelope[Any]]) -> None:
        """Publish events in order and wait until all are acknowledged; see ``publish`` for errors."""
        if not envelopes:
            return
        name = ", ".join(dict.fromkeys(envelope.data.type for envelope in envelopes)) + " publish"
        attributes = {"messaging.system": "kafka", "messaging.batch.message_count": len(envelopes)}
        with self._tracer.start_as_current_span(name, kind=SpanKind.PRODUCER, attributes=attributes):
            carried = inject()
            await self.send([_with_trace(self.sign(envelope).to_kafka(), carried) for envelope in envelopes])

    async def send(self, records: Sequence[KafkaRecord | Tombstone]) -> None:
        """Publish encoded records, and wait until all are acknowledged. Upstream data is signed.

        A record that was not acknowledged in time may still reach the log later, because aiokafka never drops
        an idempotent batch. Sending it again is harmless, because event ids are derived from content. But a
        process that decides alone could decide otherwise then. So a transaction ends before the next begins,
        however long that takes, and even if its caller is cancelled.

        Raises:
            InvalidEvent: a record is larger than the topic accepts.
            TransientError: the broker did not acknowledge within ``publish_seconds``, or refused temporarily.
            LeadershipLost: another process is active now (``Service.one_at_a_time``).
        """
        self.seal(records)
        for record in records:
            # The broker measures the compressed batch.
            if isinstance(record, KafkaRecord) and record.topic in BY_NAME:
                _require_small(record)
        patience = self._settings.publish_seconds
        try:
            if self.transactional_id is not None:
                await asyncio.shield(self._transact(records))
            else:
                async with asyncio.timeout(patience):
                    await _send(self._connected(), records)
        except TimeoutError as error:
            raise TransientError(
                f"the broker did not acknowledge within {patience:g} s; send it again, which is harmless"
            ) from error
        except MessageSizeTooLargeError as error:
            raise _too_large() from error
        except (KafkaError, OSError) as error:
            raise TransientError(f"cannot publish: {not_allowed(error) or repr(error)}") from error
        for topic, count in Counter(record.topic for record in records).items():
            self._published.add(count, {"topic": topic})

    async def _transact(self, records: Sequence[KafkaRecord | Tombstone]) -> None:
        async with self._transacting:
            producer = self._connected()
            try:
                await producer.begin_transaction()
                try:
                    await _send(producer, records)
                except _ABORTED:
                    await producer.abort_transaction()
                    raise
                await producer.commit_transaction()
            except _ABORTED:
                raise
            except KafkaError as error:
                lost = LeadershipLost(f"Kafka accepts no transaction of this process any more: {error!r}")
                lost.__cause__ = error
                self.lost(lost)
                raise lost from error

    def _connected(self) -> AIOKafkaProducer:
        if self._closing is not None:  # No handler shall try again, which would hold up the end.
            raise LeadershipLost("this process is no longer the active one, and ends")
        if self._producer is None:
            raise TransientError("the broker is not connected yet; try again shortly")
        return self._producer


async def _send(producer: AIOKafkaProducer, records: Sequence[KafkaRecord | Tombstone]) -> None:
    futures = [
        await producer.send(r.topic, None, key=r.key)
        if isinstance(r, Tombstone)
        else await producer.send(
            r.topic, r.value, key=r.key, headers=list(r.headers.items()), timestamp_ms=r.timestamp_ms
        )
        for r in records
    ]
    await asyncio.gather(*futures)


def _require_small(record: KafkaRecord) -> None:
    if len(record.value) > BY_NAME[record.topic].max_message_bytes:
        raise _too_large()


def _too_large() -> InvalidEvent:
    return InvalidEvent(field="(body)", reason=f"is over {MAX_MESSAGE_BYTES} bytes; shorten it")


async def _never_ready(*_: Any, **__: Any) -> bool:
    return False


def as_list(produced: Produced) -> list[Envelope[Any]]:
    """Return the result of a handler (None, one event or several) as a list."""
    if produced is None:
        return []
    return [produced] if isinstance(produced, Envelope) else list(produced)


def _with_trace(record: KafkaRecord, carried: dict[str, bytes]) -> KafkaRecord:
    record.headers.update(carried)
    return record
