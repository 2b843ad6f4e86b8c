"""Every way to read the log sees the same: one log with all that is hard to read, and each mode on it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import KafkaRecord
from tunewheel_contracts.topics import MODEL_PINNED
from tunewheel_contracts.topics import PROJECT_DECLARED as TOPIC
from tunewheel_local.topic_configs import set_configs
from tunewheel_runtime import log, record_search
from tunewheel_runtime.deadletter import Undecoded
from tunewheel_runtime.record_search import RecordSearch
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.view import LogReader, View
from tunewheel_testing.reading import read_latest, read_topics
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, until

pytestmark = pytest.mark.integration
ADDED = TOPIC.partitions
Options = dict[str, Any]
Reads = Callable[[Options, ServiceSettings], Awaitable[list[str]]]
PRESENT = ["added", "last", "newer", "null-header", "plain"]
SEARCH_SECONDS = 60.0
"""For a search on a busy machine; less than the minutes after which a client asks anew for partitions."""


@pytest.fixture(autouse=True)
def patient_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record_search, "LONGEST_SECONDS", SEARCH_SECONDS)


async def send(producer: AIOKafkaProducer, record: KafkaRecord, partition: int, **headers: Any) -> int:
    named = list((record.headers | headers).items())
    sent = await producer.send_and_wait(
        record.topic, record.value or None, key=record.key, headers=named, partition=partition
    )
    return sent.offset


async def abort(producer: AIOKafkaProducer, name: str) -> None:
    await producer.begin_transaction()
    await send(producer, declared(name).to_kafka(), 0)
    await producer.abort_transaction()


async def write(options: Options) -> None:
    """Write a log whose beginning is gone, with gaps within and at the end, and an added partition."""
    producer = AIOKafkaProducer(**options)
    transactions = AIOKafkaProducer(**options, transactional_id="upstream")
    admin = AIOKafkaAdminClient(**options)
    async with contextlib.AsyncExitStack() as stack:
        for client in (producer, transactions, admin):
            await client.start()
            stack.push_async_callback(client.close if client is admin else client.stop)
        await send(producer, declared("removed").to_kafka(), 0)
        await set_configs(admin, {TOPIC.name: {"cleanup.policy": "compact,delete"}})
        await admin.delete_records({TopicPartition(TOPIC.name, 0): RecordsToDelete(1)})
        await send(producer, declared("plain").to_kafka(), 0)
        await send(producer, declared("null-header").to_kafka(), 0, ce_extra=None)
        await abort(transactions, "aborted")
        newer = declared("newer").to_kafka()
        body = json.loads(newer.value) | {"tomorrow": 1}
        newer = KafkaRecord(newer.topic, newer.key, json.dumps(body).encode(), newer.headers)
        await send(producer, newer, 0)
        await send(producer, KafkaRecord(TOPIC.name, b"newer", b"{"), 0)
        await send(producer, declared("last").to_kafka(), 0)
        await send(producer, KafkaRecord(TOPIC.name, b"plain", b""), 0)
        await abort(transactions, "aborted-too")
        await widen(admin, ADDED + 1)
    async with AIOKafkaProducer(**options) as late:  # It learns of the partition now.
        await send(late, declared("added").to_kafka(), ADDED)


async def widen(admin: AIOKafkaAdminClient, partitions: int) -> None:
    await admin.create_partitions({TOPIC.name: NewPartitions(partitions)})
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            (described,) = await admin.describe_topics([TOPIC.name])
            if len([p for p in described["partitions"] if p["leader"] >= 0]) == partitions:
                return
            await asyncio.sleep(0.02)


async def by_read(options: Options, _: ServiceSettings) -> list[str]:
    batches = [records async for records in log.read(options, [TOPIC.name])]
    return [event.project for records in batches for one in records if (event := log.decoded(one))]


async def by_follow(options: Options, _: ServiceSettings) -> list[str]:
    seen: list[str] = []
    async with contextlib.aclosing(log.follow(options, [TOPIC.name])) as batches:
        async for records in batches:
            seen += [event.project for one in records if (event := log.decoded(one))]
            if len(seen) >= len(PRESENT):
                return seen
    raise AssertionError("it ended")


async def by_places(options: Options, _: ServiceSettings) -> list[str]:
    spans = await log.ends(options, [TOPIC.name])
    places = [(n, offset) for (_, n), span in spans.items() for offset in range(span.end + 2)]
    found = await log.at(options, TOPIC, [*places, (ADDED + 7, 0)])
    return [event.project for event in found.values()]


async def by_search(options: Options, settings: ServiceSettings) -> list[str]:
    search = RecordSearch(settings, TOPIC)
    names = [*PRESENT, "removed", "aborted", "aborted-too"]
    try:
        events = [await search.find(name, declared("any").time.replace(year=2001)) for name in names]
    finally:
        await search.close()
    return [event.project for event in events if event]


async def by_replay(options: Options, settings: ServiceSettings) -> list[str]:
    seen, failures = list[str](), list[BaseException]()
    reader = LogReader(settings, [TOPIC], lambda event, _: seen.append(event.project), failed=failures.append)
    await reader.start()
    await reader.refresh()
    await reader.stop()
    assert failures == []
    return seen


async def by_command(options: Options, _: ServiceSettings) -> list[str]:
    return [event.project async for event in read_topics(options, [TOPIC])]


async def by_view(options: Options, settings: ServiceSettings) -> list[str]:
    view: View[Any] = View(settings, TOPIC, failed=lambda error: None)
    await view.reader.start()
    await view.reader.stop()
    return [event.project for event in view.values()]


async def by_latest(options: Options, _: ServiceSettings) -> list[str]:
    return list(await log.latest(options, TOPIC))


async def by_latest_of_a_command(options: Options, _: ServiceSettings) -> list[str]:
    return list(await read_latest(options, TOPIC))


EVERY_EVENT = (by_read, by_follow, by_places, by_search, by_replay, by_command)
NEWEST_OF_KEY = (by_view, by_latest, by_latest_of_a_command)


async def test_every_mode_reads_the_same_of_a_log_with_gaps_strange_records_and_added_partitions(
    fresh_kafka: str, tmp_path: Path
) -> None:
    options = {"bootstrap_servers": fresh_kafka}
    settings = ServiceSettings(bootstrap_servers=fresh_kafka, store_url=tmp_path.as_uri())
    await write(options)
    spans = await log.ends(options, [TOPIC.name])
    assert (spans[TOPIC.name, 0].begin, spans[TOPIC.name, ADDED]) == (1, (0, 1))
    expected: dict[Reads, list[str]] = dict.fromkeys(EVERY_EVENT, PRESENT)
    expected |= {mode: [name for name in PRESENT if name != "plain"] for mode in NEWEST_OF_KEY}
    async with asyncio.timeout(PATIENCE_SECONDS):
        found = {mode: sorted(await mode(options, settings)) for mode in expected}
    assert found == expected
    (letters,) = [
        one async for one in log.read(options, [TOPIC.name], upto={(TOPIC.name, 0): 3, ("no", 0): 1})
    ]
    assert [one.position.offset for one in letters] == [1, 2]
    assert letters[1].headers["ce_extra"] == b""


@pytest.mark.nightly("matrices")
async def test_a_search_finds_at_once_what_lies_in_a_partition_added_since_the_last_search(
    fresh_kafka: str,
) -> None:
    options = {"bootstrap_servers": fresh_kafka}
    search = RecordSearch(ServiceSettings(bootstrap_servers=fresh_kafka), TOPIC)
    async with AIOKafkaProducer(**options) as producer:
        first = declared("first")
        await send(producer, first.to_kafka(), 0)
        # The second search begins while a fetch of the first may still wait on the broker.
        assert await search.find("nobody's", first.time) is None
        assert await search.find("first", first.time) == first
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    await widen(admin, ADDED + 1)
    await admin.close()
    async with AIOKafkaProducer(**options) as producer:
        added = declared("added")
        await send(producer, added.to_kafka(), ADDED)
    async with asyncio.timeout(SEARCH_SECONDS):
        assert await search.find("added", first.time) == added
    await search.close()


async def test_reading_a_topic_without_records_ends_every_time(kafka: str) -> None:
    """The clients were stopped while they left an assignment, and every second time went on for ever."""
    for _ in range(8):
        async with asyncio.timeout(PATIENCE_SECONDS):
            assert [event async for event in read_topics({"bootstrap_servers": kafka}, (MODEL_PINNED,))] == []


@pytest.mark.parametrize("left", [0, pytest.param(2, marks=pytest.mark.nightly("matrices"))])
async def test_a_reader_that_must_see_all_fails_where_records_were_deleted_before_it_read_them(
    fresh_kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Kafka's client goes on at the first record that is left, without a word."""
    options = {"bootstrap_servers": fresh_kafka}
    settings = ServiceSettings(bootstrap_servers=fresh_kafka, store_url=tmp_path.as_uri())
    seen, failures, may_read = list[str](), list[BaseException](), asyncio.Event()
    reader = LogReader(
        settings, [TOPIC], lambda event, _: seen.append(event.project), failed=failures.append, begins=whole
    )
    fetch = reader._cursor.fetch

    async def stalled(*places: Any, **how: Any) -> list[Undecoded]:
        await may_read.wait()
        return await fetch(*places, **how)

    may_read.set()
    monkeypatch.setattr(reader._cursor, "fetch", stalled)
    await write(options)
    await reader.start()
    async with (
        AIOKafkaProducer(**options) as producer,
        AIOKafkaProducer(**options, transactional_id="upstream") as transactions,
    ):
        await abort(transactions, "aborted-again")
        await send(producer, declared("after-a-gap").to_kafka(), 0)
        await reader.refresh()
        assert (seen[-1], failures) == ("after-a-gap", [])
        may_read.clear()
        last = [await send(producer, declared(f"missed-{n}").to_kafka(), 0) for n in range(6)][-1]
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    await admin.delete_records({TopicPartition(TOPIC.name, 0): RecordsToDelete(last + 1 - left)})
    await admin.close()
    may_read.set()
    await until(lambda: failures or "missed-5" in seen)
    await reader.stop()
    assert [type(error) for error in failures] == [TransientError]
    assert f"{TOPIC.name}[0] from offset" in str(failures[0])


async def whole() -> dict[str, dict[str, int] | None]:
    return {}
