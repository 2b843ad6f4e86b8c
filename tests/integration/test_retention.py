"""Texts of upstream systems leave the log once every service has handled them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import TopicAuthorizationFailedError
from aiokafka.record import MemoryRecords
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import RecordIngested, RecordKind
from tunewheel_contracts.events.upstream import FeedbackReceived, TicketPublished
from tunewheel_contracts.identity import content_id
from tunewheel_contracts.topics import FOREVER, TopicSpec
from tunewheel_ingest.main import make_app
from tunewheel_ingest.settings import Settings
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.topic_configs import set_configs
from tunewheel_local.topics import ensure_topics
from tunewheel_runtime.log import ends
from tunewheel_runtime.retention import Held, Retention
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.specs import declared

from .bus import Bus, running, until

pytestmark = pytest.mark.integration
DAYS = 7
LATER = datetime.now(UTC) + timedelta(days=DAYS + 1)
QUICK = {
    "log.retention.check.interval.ms": "100",
    "log.initial.task.delay.ms": "0",
    "log.segment.delete.delay.ms": "0",
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker of this module's own, which removes closed segments at once."""
    with LocalKafka(tmp_path_factory.mktemp("kafka"), port=None, properties=QUICK) as broker:
        asyncio.run(ensure_topics({"bootstrap_servers": broker.bootstrap_servers}))
        yield broker


class Kept:
    """The retention of one topic, with what it warned of last."""

    def __init__(
        self,
        broker: LocalKafka,
        folder: Path,
        topic: TopicSpec,
        *,
        days: int = DAYS,
        held: Held | None = None,
    ) -> None:
        settings = Settings(bootstrap_servers=broker.bootstrap_servers, store_url=(folder / "s").as_uri())
        store, self.warnings = ObjectStore(settings.store_url), dict[str, str | None]()
        self.retention = Retention(
            settings, store, topic, days=days, warn=self.warnings.__setitem__, failed=pytest.fail, held=held
        )

    async def sweep(self, *, first: bool = True) -> Any:
        if first:
            assert await self.retention.sweep(LATER - timedelta(days=DAYS)) == {}, "the first week"
        return await self.retention.sweep(LATER)


def ticket(project: str, number: int, text: str) -> Envelope[TicketPublished]:
    data = TicketPublished(project=project, ticket_id=f"T-{number}", body=text, customer="jane")
    return new_event(data, source="/test")


def record(project: str, number: int) -> Envelope[RecordIngested]:
    data = RecordIngested(
        project=project, record_id=content_id("rec", [project, number]), kind=RecordKind.TICKET,
        source_id=f"T-{number}", source_event_id="e", input="text", group="jane",
    )  # fmt: skip
    return new_event(data, source="/test")


def thumb(project: str) -> Envelope[FeedbackReceived]:
    data = FeedbackReceived(project=project, feedback_id="f", completion_id="c", rating="up")
    return new_event(data, source="/test")


async def on_log(broker: LocalKafka, topic: TopicSpec, word: str) -> list[bytes]:
    """Return the values on ``topic`` that hold ``word``."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        consumer.assign(places)
        ends, found = await consumer.end_offsets(places), list[bytes]()
        while any([await consumer.position(place) < ends[place] for place in places]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [record.value for record in records if word.encode() in (record.value or b"")]
        return found
    finally:
        await consumer.stop()


def on_disk(broker: LocalKafka, topic: TopicSpec, word: str) -> bool:
    """Return whether a segment of ``topic`` holds ``word``, also where no client can read it any more."""
    while True:
        with contextlib.suppress(FileNotFoundError):  # the broker renames a segment, and then removes it
            return any(map(partial(_holds, word), broker.data.glob(f"{topic.name}-?/*.log*")))


def _holds(word: str, segment: Path) -> bool:
    batches = MemoryRecords(segment.read_bytes())
    while batches.has_next():
        if any(word.encode() in (record.value or b"") for record in batches.next_batch()):
            return True
    return False


async def commit(broker: LocalKafka, topic: TopicSpec, service: str) -> None:
    (group,) = topic.groups_of(service)
    options = {"bootstrap_servers": broker.bootstrap_servers, "group_id": group}
    # On stopping, a consumer that commits by itself would put back the place where it began to fetch.
    consumer = AIOKafkaConsumer(**options, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(topic.name, number) for number in range(topic.partitions)]
        consumer.assign(places)
        await consumer.commit(await consumer.end_offsets(places))
    finally:
        await consumer.stop()


async def test_handled_tickets_leave_the_log_and_the_disk_and_their_records_stay(
    broker: LocalKafka, tmp_path: Path, project: str
) -> None:
    canary, kept = f"canary-{project}", Kept(broker, tmp_path, topics.TICKET_PUBLISHED)
    app = Settings(bootstrap_servers=broker.bootstrap_servers, store_url=(tmp_path / "store").as_uri())
    async with Bus(broker.bootstrap_servers) as bus:
        await bus.publish(declared(project), *(ticket(project, n, f"{canary} {n}") for n in range(6)))
        await kept.sweep()
        assert len(await on_log(broker, topics.TICKET_PUBLISHED, canary)) == 6, "nobody has read them"
        assert "ticket.published[" in (kept.warnings.popitem()[1] or "")
        async with running(make_app(app)):
            await bus.collect(topics.RECORD_INGESTED, 6, where=lambda event: event.project == project)
        assert await kept.sweep(first=False)
        assert await on_log(broker, topics.TICKET_PUBLISHED, canary) == []
        assert list(kept.warnings.values()) == [None]
        assert await kept.sweep(first=False) == {}, "a repetition deletes nothing"
        assert on_disk(broker, topics.TICKET_PUBLISHED, canary), "in segments that are not closed yet"
        await close_segments(broker, topics.TICKET_PUBLISHED)
        async with running(make_app(app)):
            await bus.publish(*(ticket(project, n, f"later {n}") for n in range(6)))
            later = await bus.collect(
                topics.RECORD_INGESTED, 12, where=lambda event: event.project == project
            )
        assert sum("later" in event.data.input for event in later) == 6
        await until(lambda: not on_disk(broker, topics.TICKET_PUBLISHED, canary))


async def close_segments(broker: LocalKafka, topic: TopicSpec) -> None:
    """Let the next record of each partition of ``topic`` close its segment, as after a day."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        await set_configs(admin, {topic.name: {"segment.ms": "1"}})
    finally:
        await admin.close()


async def test_feedback_stays_until_the_monitor_too_has_handled_it(
    broker: LocalKafka, tmp_path: Path, project: str
) -> None:
    kept = Kept(broker, tmp_path, topics.FEEDBACK_RECEIVED)
    async with Bus(broker.bootstrap_servers) as bus:
        await bus.publish(thumb(project))
    await commit(broker, topics.FEEDBACK_RECEIVED, "ingest")
    assert await kept.sweep() == {}
    assert "a service has not handled them" in str(kept.warnings)
    await commit(broker, topics.FEEDBACK_RECEIVED, "monitor")
    assert await kept.sweep(first=False)
    assert await on_log(broker, topics.FEEDBACK_RECEIVED, project) == []


async def test_what_is_younger_than_the_days_or_kept_for_ever_stays(
    broker: LocalKafka, tmp_path: Path, project: str
) -> None:
    async with Bus(broker.bootstrap_servers) as bus:
        await bus.publish(ticket(project, 1, "young"))
    await commit(broker, topics.TICKET_PUBLISHED, "ingest")
    young, ever = Kept(broker, tmp_path, topics.TICKET_PUBLISHED, days=DAYS + 2), FOREVER
    await young.sweep()
    retention = Kept(broker, tmp_path, topics.TICKET_PUBLISHED, days=ever).retention
    await retention.start()
    await retention.stop()
    assert len(await on_log(broker, topics.TICKET_PUBLISHED, project)) == 1


async def test_of_a_topic_that_was_made_anew_nothing_unread_is_deleted(
    broker: LocalKafka, tmp_path: Path, project: str
) -> None:
    topic = topics.RECORD_INGESTED

    async def held(_: int) -> int:
        return 1_000  # of the earlier topic: the new one has fewer records

    async with Bus(broker.bootstrap_servers) as bus:
        await bus.publish(*(record(project, number) for number in range(20)))
    await commit(broker, topic, "curate")
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        await admin.delete_topics([topic.name])

        async def is_gone() -> bool:
            return topic.name not in await admin.list_topics()

        await until(is_gone)  # the broker forgets it a moment after it has answered
    finally:
        await admin.close()
    await ensure_topics({"bootstrap_servers": broker.bootstrap_servers})
    async with Bus(broker.bootstrap_servers) as bus:
        await bus.publish(*(record(project, number) for number in range(30)))
    assert await Kept(broker, tmp_path / "other", topic).sweep() == {}, "nobody has read them"
    assert len(await on_log(broker, topic, project)) == 30
    await commit(broker, topic, "curate")
    kept = Kept(broker, tmp_path, topic, held=held)
    assert await kept.sweep() == {}, "the table does not have them"
    assert "record.ingested[" in str(kept.warnings)


async def test_records_stay_until_the_table_has_them(
    broker: LocalKafka, tmp_path: Path, project: str
) -> None:
    topic, in_table = topics.RECORD_INGESTED, dict[int, int]()

    async def held(partition: int) -> int:
        return in_table.get(partition, 0)

    async with Bus(broker.bootstrap_servers) as bus:
        await bus.publish(*(record(project, number) for number in range(30)))
    await commit(broker, topic, "curate")
    kept = Kept(broker, tmp_path, topic, held=held)
    assert await kept.sweep() == {}
    options = {"bootstrap_servers": broker.bootstrap_servers}
    ends_of = {number: span.end for (_, number), span in (await ends(options, [topic.name])).items()}
    in_table |= {number: end - 1 for number, end in ends_of.items()}
    await kept.sweep(first=False)
    assert len(await on_log(broker, topic, project)) == sum(end > 0 for end in ends_of.values())
    in_table |= ends_of
    await kept.sweep(first=False)
    assert await on_log(broker, topic, project) == []


async def test_a_missing_right_is_a_warning_that_names_the_topic(
    broker: LocalKafka, tmp_path: Path, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forbidden(*_: object) -> None:
        raise TopicAuthorizationFailedError

    async with Bus(broker.bootstrap_servers) as bus:
        await bus.publish(ticket(project, 1, "text"))
    await commit(broker, topics.TICKET_PUBLISHED, "ingest")
    kept = Kept(broker, tmp_path, topics.TICKET_PUBLISHED, days=0)
    monkeypatch.setattr(AIOKafkaAdminClient, "delete_records", forbidden)
    await kept.retention.start()
    await until(lambda: "ticket.published; allow it" in str(kept.warnings))
    await kept.retention.stop()
