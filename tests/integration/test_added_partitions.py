"""Topics whose partitions an operator increased: what is written to the new ones is read like the rest."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions
from tunewheel_console.letters import Traffic
from tunewheel_contracts import topics
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import FeedbackReceived
from tunewheel_contracts.topics import TopicSpec
from tunewheel_runtime import log, view
from tunewheel_runtime.deadletter import Position, Undecoded, dead_letter, refused
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_testing.dead_letters import dead_letter_counts, read_dead_letters
from tunewheel_testing.reading import follow
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, until

pytestmark = pytest.mark.integration


async def widen(kafka: str, topic: str, partitions: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    try:
        await admin.create_partitions({topic: NewPartitions(partitions)})
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:  # the broker tells of them a moment later
                (described,) = await admin.describe_topics([topic])
                if len([p for p in described["partitions"] if p["leader"] >= 0]) == partitions:
                    return
                await asyncio.sleep(0.02)
    finally:
        await admin.close()


async def write(kafka: str, event: Envelope[Any], partition: int) -> None:
    """Write to one partition, with a producer that learns of it now."""
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    try:
        sent = event.to_kafka()
        await producer.send_and_wait(
            sent.topic, sent.value, key=sent.key, headers=list(sent.headers.items()), partition=partition
        )
    finally:
        await producer.stop()


def rating(project: str, name: str) -> Envelope[FeedbackReceived]:
    data = FeedbackReceived(project=project, feedback_id=name, completion_id=name, rating="up")
    return new_event(data, source="/test")


async def test_a_view_reads_partitions_that_the_spec_does_not_know_and_those_added_while_it_follows(
    fresh_kafka: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "NOTICE_MS", 200)
    topic: TopicSpec = topics.PROJECT_DECLARED
    settings = ServiceSettings(bootstrap_servers=fresh_kafka, store_url=tmp_path.as_uri())
    failures: list[BaseException] = []
    projects: view.View[Any] = view.View(settings, topic, failed=failures.append)
    order: list[str] = []
    projects.on_change(lambda event: order.append(event.project))

    await write(fresh_kafka, declared("spec"), 0)
    await widen(fresh_kafka, topic.name, topic.partitions + 1)
    await write(fresh_kafka, declared("before"), topic.partitions)
    watched: list[str] = []
    watching = asyncio.create_task(watch(fresh_kafka, topic, watched))
    await projects.reader.start()
    try:
        assert sorted(order) == ["before", "spec"]
        await widen(fresh_kafka, topic.name, topic.partitions + 2)
        await write(fresh_kafka, declared("asked"), topic.partitions + 1)
        assert await projects.fresh("asked") is not None  # reads to the end, as it is now
        await widen(fresh_kafka, topic.name, topic.partitions + 3)
        await write(fresh_kafka, declared("noticed"), topic.partitions + 2)
        await until(lambda: projects.get("noticed") is not None)
        await write(fresh_kafka, declared("old"), 0)
        assert await projects.fresh("old") is not None
        await until(lambda: len(watched) == 5)
    finally:
        watching.cancel()
        await projects.reader.stop()
    assert order[2:] == ["asked", "noticed", "old"]  # and nothing twice
    assert failures == []
    assert sorted(watched) == ["asked", "before", "noticed", "old", "spec"]


async def watch(kafka: str, topic: TopicSpec, watched: list[str]) -> None:
    async for event in follow({"bootstrap_servers": kafka}, [topic], from_beginning=True):
        watched.append(event.project)


@pytest.mark.nightly("matrices")
async def test_monitor_finds_and_console_shows_what_lies_in_added_partitions_and_letters_count_once(
    fresh_kafka: str, tmp_path: Path
) -> None:
    topic: TopicSpec = topics.FEEDBACK_RECEIVED
    settings = ServiceSettings(bootstrap_servers=fresh_kafka, store_url=tmp_path.as_uri())
    added, shown = topic.partitions, list[str]()
    counted: set[tuple[str, Position]] = set()
    await widen(fresh_kafka, topic.name, added + 1)
    await widen(fresh_kafka, topic.dead_letter, 2)
    await write(fresh_kafka, rating("desk", "f-1"), added)

    options = {"bootstrap_servers": fresh_kafka}
    found = await log.at(options, topic, [(added, 0), (added, 7), (0, 0)])
    assert {place: event.data.feedback_id for place, event in found.items()} == {(added, 0): "f-1"}

    source = Undecoded(Position(topic.name, 0, 7), b"k", b"refused", {})
    letter = dead_letter(source, InvalidEvent(field="rating", reason="is missing"), service="monitor")
    producer = AIOKafkaProducer(bootstrap_servers=fresh_kafka)
    await producer.start()
    for partition in (1, 1, 0):  # whoever wrote it was killed before the offset moved
        await producer.send_and_wait(
            letter.topic, letter.value, headers=list(letter.headers.items()), partition=partition
        )
    await producer.send_and_wait(letter.topic, b"somebody else's", partition=1)
    await producer.stop()
    assert [found.offset for found in [one async for one in read_dead_letters(options)]].count(7) == 1
    assert await dead_letter_counts(options) == {topic.name: 2}
    traffic = Traffic(
        settings,
        (topic,),
        lambda event: shown.append(event.data.feedback_id),
        refuse=lambda _: None,
        told=lambda letter, _: counted.add(refused(letter)),
        latest=10,
    )
    await traffic.start()
    try:
        await until(lambda: shown == ["f-1"] and len(counted) == 2)
    finally:
        await traffic.stop()
