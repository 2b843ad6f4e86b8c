"""What FastStream does that the runtime relies on and no interface promises (ADR 52).

Where a test fails after an upgrade, its message says which code of the runtime has to follow.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from faststream import AckPolicy
from structlog.testing import capture_logs
from tunewheel_runtime.broker import _Subscribed, make_broker
from tunewheel_runtime.kafka import POLL_MS
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.subscriptions import _leave_undecoded, _parse_any_headers

TOPIC = "ticket.published"
Read = Callable[[], Awaitable[Any]]


def record(offset: int, *headers: tuple[str, Any]) -> ConsumerRecord[Any, Any]:
    return ConsumerRecord(TOPIC, 0, offset, 0, 0, b"key", b"{}", None, 3, 2, headers)


class Reads:
    """What the consumer's reads bring, one after the other. After the last one they wait for ever."""

    def __init__(self) -> None:
        self.brings: list[Any] = []
        self.asked: list[dict[str, Any]] = []

    async def read(self, **asked: Any) -> Any:
        self.asked.append(asked)
        if not self.brings:
            await asyncio.Event().wait()
        if isinstance(found := self.brings.pop(0), Exception):
            raise found
        return found


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Reads:
    """The clients reach no broker, and consumers read what the test puts here."""
    reads = Reads()

    async def start(_: object) -> None: ...

    async def stop(client: Any) -> None:
        client._closed = True

    for client, end in (
        (AIOKafkaConsumer, "stop"),
        (AIOKafkaProducer, "stop"),
        (AIOKafkaAdminClient, "close"),
    ):
        monkeypatch.setattr(client, "start", start)
        monkeypatch.setattr(client, end, stop)
    for name in ("getone", "getmany"):
        monkeypatch.setattr(AIOKafkaConsumer, name, lambda _, **asked: reads.read(**asked))
    return reads


async def subscribed(handle: Callable[[Any], Awaitable[None]], **options: Any) -> tuple[Any, Any]:
    """Start a broker as a service does, with one subscriber; return both."""
    settings = ServiceSettings(bootstrap_servers="127.0.0.1:9")
    broker = make_broker("test", settings, lambda error: None)
    subscriber = broker.subscriber(
        TOPIC, group_id="test", ack_policy=AckPolicy.MANUAL, parser=_parse_any_headers,
        decoder=_leave_undecoded, **options,
    )  # fmt: skip
    subscriber(handle)
    await broker.start()
    return broker, subscriber


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.001)


async def test_a_subscriber_gets_the_consumer_of_the_broker_and_each_message_names_it(reads: Reads) -> None:
    seen: list[Any] = []

    async def handle(message: Any) -> None:
        seen.append(message)

    reads.brings = [record(0)]
    broker, subscriber = await subscribed(handle)
    assert type(subscriber.consumer) is _Subscribed, (
        "subscribers no longer take their consumer from config.broker_config.builder after _connect: "
        "see broker._Broker"
    )
    await until(lambda: seen)
    assert seen[0].consumer is subscriber.consumer, "see subscriptions._consumer"
    await broker.stop()
    assert subscriber.consumer is None, "subscriptions take a consumer that is not None for one that runs"


async def test_a_batch_is_one_getmany_and_an_empty_poll_never_reaches_faststream(reads: Reads) -> None:
    seen: list[Any] = []

    async def handle(message: Any) -> None:
        seen.append(message.raw_message)

    reads.brings = [{}, {TopicPartition(TOPIC, 0): [record(0), record(1)]}]
    broker, _ = await subscribed(handle, batch=True, max_records=7)
    await until(lambda: seen)
    await broker.stop()
    assert seen == [(record(0), record(1))], "see broker._Subscribed, which waits for a record"
    assert reads.asked[0] == {"timeout_ms": POLL_MS, "max_records": 7}, "see broker._Subscribed.getmany"


@pytest.mark.parametrize(
    ("error", "handled"), [(asyncio.CancelledError, [0]), (ValueError, [0, 1])], ids=["cancelled", "other"]
)
async def test_only_cancelled_error_ends_reading(reads: Reads, error: type, handled: list[int]) -> None:
    seen: list[int] = []

    async def handle(message: Any) -> None:
        seen.append(message.raw_message.offset)
        raise error

    reads.brings = [record(0), record(1)]
    broker, subscriber = await subscribed(handle)
    await until(
        lambda: len(seen) == len(handled) and all(task.done() or seen[1:] for task in subscriber.tasks)
    )
    await broker.stop()
    assert seen == handled, (
        "after an error of a handler FastStream read on, or did not: see subscriptions._guard, "
        "which stops a service by CancelledError"
    )


async def test_an_error_in_reading_is_given_to_the_logger_and_reading_goes_on(
    reads: Reads, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def at_once(_: float) -> None: ...

    monkeypatch.setattr(anyio, "sleep", at_once)
    seen: list[int] = []

    async def handle(message: Any) -> None:
        seen.append(message.raw_message.offset)

    reads.brings = [KafkaConnectionError("away"), record(0)]
    with capture_logs() as logs:
        broker, _ = await subscribed(handle)
        await until(lambda: seen)
        await broker.stop()
    told = [line["event"] for line in logs if line["log_level"] == "warning"]
    assert told == ["consume_failed"], "errors in reading no longer come as exc_info: see broker._Troubles"


async def test_headers_that_are_no_text_fail_in_the_parser_and_nowhere_before(reads: Reads) -> None:
    odd, seen = (record(0, ("a", None)), record(1, ("a", b"\xff"))), []

    async def handle(message: Any) -> None:
        seen.append(message.raw_message)

    reads.brings = [*odd]
    broker, _ = await subscribed(handle)
    await until(lambda: len(seen) == 2)
    await broker.stop()
    assert seen == [*odd], "see subscriptions._parse_any_headers, which parses such a record without them"
