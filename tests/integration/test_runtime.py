"""The runtime on a real broker: what an error does, who owns a job, what a restart repeats."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaConnectionError
from aiokafka.partitioner import murmur2
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tunewheel_contracts import topics
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, KafkaRecord, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested, RecordIngested, RecordKind
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.topics import ensure_topics, wanted_topics
from tunewheel_runtime.kafka import POLL_MS, LongPolling, client_options, make_consumer
from tunewheel_runtime.lag import read_lag
from tunewheel_runtime.leadership import LeadershipLost
from tunewheel_runtime.lifecycle import Lifecycle
from tunewheel_runtime.service import Delivery, Lease, Service
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_runtime.view import View
from tunewheel_testing.dead_letters import read_dead_letters
from tunewheel_testing.reading import declared_projects
from tunewheel_testing.sender import publish_events
from tunewheel_testing.specs import declared

from .bus import PATIENCE_SECONDS, Bus, running, until

pytestmark = pytest.mark.integration


def service(kafka: str, tmp_path: Path, name: str, **options: Any) -> Service:
    telemetry = options.pop("telemetry", None)
    # Nobody here is to be taken for dead: a test that stalls for longer than that sees events twice.
    quick = {"retry_first_delay_seconds": 0.01, "retry_max_delay_seconds": 0.05, "session_timeout_ms": 30_000}
    settings = ServiceSettings(
        bootstrap_servers=kafka, store_url=(tmp_path / "store").as_uri(), **(quick | options)
    )
    return Service(name, settings, telemetry=telemetry)


def request(project: str, name: str) -> Envelope[DatasetRequested]:
    data = DatasetRequested(project=project, reason=BuildReason.COMMAND, request=name)
    return new_event(data, source="/test")


def record(project: str, n: int) -> Envelope[RecordIngested]:
    data = RecordIngested(
        project=project, record_id=f"rec-{n}", kind=RecordKind.TICKET, source_id=f"T-{n}",
        source_event_id="x", input=f"bell {n}", group=f"T-{n}",
    )  # fmt: skip
    return new_event(data, source="/test")


async def test_transient_is_retried_invalid_is_dead_lettered_and_the_next_still_flows(
    kafka: str, tmp_path: Path, project: str
) -> None:
    made = service(kafka, tmp_path, project)
    seen: list[str] = []

    @made.on(topics.DATASET_REQUESTED)
    async def on_dataset_requested(event: Envelope[DatasetRequested]) -> Envelope[TrainControl] | None:
        if event.project != project:
            return None
        seen.append(event.data.request)
        if event.data.request == "flaky" and seen.count("flaky") < 3:
            raise TransientError("the store is away")
        if event.data.request == "bad":
            raise InvalidEvent(field="request", reason="is bad; send a good one")
        data = TrainControl(
            project=project, run_id="run-1", action=TrainAction.PAUSE, request=event.data.request
        )
        return made.new(data, cause=event)

    async with Bus(kafka) as bus, running(made):
        sent = [request(project, name) for name in ("flaky", "bad", "good")]
        await bus.publish(*sent)
        out = await bus.collect(topics.TRAIN_CONTROL, 2, where=lambda e: e.project == project)
        assert [e.data.request for e in out] == ["flaky", "good"]
        assert [e.causation_id for e in out] == [sent[0].id, sent[2].id]
        assert seen == ["flaky", "flaky", "flaky", "bad", "good"]
        letter = (await bus.dead_letters("dataset.requested", 1, about=project))[0]
        assert (letter.field, letter.reason) == ("request", "is bad; send a good one")


async def test_what_is_only_replayed_and_cannot_be_read_becomes_a_dead_letter(
    kafka: str, tmp_path: Path, project: str
) -> None:
    made, known = service(kafka, tmp_path, project), list[str]()
    made.replay((topics.TRAIN_CONTROL,), lambda event: known.append(event.project))
    made.check(topics.TRAIN_CONTROL)
    data = TrainControl(project=project, run_id="run-1", action=TrainAction.PAUSE, request="one")
    good = new_event(data, source="/test")
    async with Bus(kafka) as bus, running(made):
        wrong = good.to_kafka().value.replace(b'"pause"', b'"paws"')
        await bus.send("train.control", b"run-1", wrong, good.to_kafka().headers)
        await bus.publish(good)
        (letter,) = await bus.dead_letters("train.control", 1, about=project)
        await until(lambda: project in known)
    assert (letter.field, letter.value) == ("action", wrong)


async def test_any_other_error_stops_the_service_and_a_restart_sees_the_event_again(
    kafka: str, tmp_path: Path, project: str
) -> None:
    broken = service(kafka, tmp_path, project)

    @broken.on(topics.DATASET_REQUESTED)
    async def fail(event: Envelope[DatasetRequested]) -> None:
        if event.project == project:
            raise ZeroDivisionError("a bug")

    async with Bus(kafka) as bus:
        async with running(broken):
            await bus.publish(request(project, "one"), request(project, "two"))
            await until(lambda: broken.failure is not None)
        assert isinstance(broken.failure, ZeroDivisionError)

        mended, seen = service(kafka, tmp_path, project), []

        @mended.on(topics.DATASET_REQUESTED)
        async def handle(event: Envelope[DatasetRequested]) -> None:
            if event.project == project:
                seen.append(event.data.request)

        async with running(mended):
            await until(lambda: len(seen) == 2)
    assert seen == ["one", "two"]


async def test_messages_as_large_as_the_log_takes_block_nothing_when_they_are_refused(
    fresh_kafka: str, tmp_path: Path, project: str
) -> None:
    """Dead letters are larger than what they carry, and compressed messages than what carried them."""
    kafka = fresh_kafka  # on the shared one, what other tests left becomes dead letters here
    made, seen = service(kafka, tmp_path, "ingest"), list[str]()  # the first reader writes the letters

    @made.on(topics.TICKET_PUBLISHED)
    async def on_ticket_published(event: Envelope[TicketPublished]) -> None:
        if event.project == project:
            seen.append(event.data.ticket_id)

    def ticket(ticket_id: str) -> Envelope[TicketPublished]:
        return new_event(TicketPublished(project=project, ticket_id=ticket_id, body="?"), source="/test")

    headers = ticket("T-1").to_kafka().headers
    wide = AIOKafkaProducer(bootstrap_servers=kafka, compression_type="gzip", max_request_size=64 << 20)
    async with Bus(kafka) as bus, running(made):
        half, whole = MAX_MESSAGE_BYTES // 2, MAX_MESSAGE_BYTES
        await bus.send("ticket.published", b"T-1", b"{" + b" " * (whole - 1_000), headers)
        misspelt = json.dumps({"project": project, "ticket_id": "T-1", "body": "?", "x" * (whole - 2_000): 1})
        await bus.send("ticket.published", b"T-1", misspelt.encode(), headers)
        await wide.start()
        try:
            await wide.send_and_wait(
                "ticket.published", b"0" * (3 * whole), key=b"T-1", headers=list(headers.items())
            )
        finally:
            await wide.stop()
        await bus.publish(ticket("T-1"))
        await until(lambda: seen == ["T-1"])
        letters = await bus.dead_letters("ticket.published", 3)
    assert [len(letter.value) for letter in letters] == [whole - 999, len(misspelt), half]
    assert letters[1].reason == "is no known field; correct its name or remove it"


async def test_batches_of_every_codec_are_read(kafka: str, tmp_path: Path, project: str) -> None:
    pytest.importorskip("cramjam")
    codecs, made, seen = (
        ["gzip", "lz4", "snappy", "zstd", None],
        service(kafka, tmp_path, project),
        set[str](),
    )

    @made.on(topics.DATASET_REQUESTED)
    async def on_dataset_requested(event: Envelope[DatasetRequested]) -> None:
        if event.project == project:
            seen.add(event.data.request)

    async with running(made):
        for codec in codecs:
            sent = request(project, str(codec)).to_kafka()
            async with AIOKafkaProducer(bootstrap_servers=kafka, compression_type=codec) as upstream:
                await upstream.send_and_wait(
                    sent.topic, sent.value, key=sent.key, headers=list(sent.headers.items())
                )
        await until(lambda: seen == set(map(str, codecs)))


async def test_services_and_the_command_compress_what_they_publish(
    kafka_broker: LocalKafka, tmp_path: Path, project: str
) -> None:
    kafka, same = kafka_broker.bootstrap_servers, "bell" * 1_000
    made = service(kafka, tmp_path, project)
    event = new_event(TicketPublished(project=project, ticket_id="T-1", body=same), source="/test")
    async with running(made):
        await made.publisher.publish(event)
    await publish_events({"bootstrap_servers": kafka}, event)
    written = [path.read_bytes() for path in kafka_broker.data.glob("ticket.published-*/*.log")]
    assert written
    assert not any(same.encode() in segment for segment in written)


async def test_an_event_that_the_log_refuses_leaves_the_producer_able_to_publish_the_next(
    kafka: str, tmp_path: Path, project: str
) -> None:
    made = service(kafka, tmp_path, project)
    async with Bus(kafka) as bus, running(made):
        for beyond in (100, 40_000, 100_000):
            huge = KafkaRecord("ticket.published", b"T-1", b"0" * (MAX_MESSAGE_BYTES + beyond))
            with pytest.raises(InvalidEvent, match="shorten it"):
                await made.publisher.send([huge])
            await made.publisher.publish(record(project, beyond))
        await bus.collect(topics.RECORD_INGESTED, 3, where=lambda e: e.project == project)


async def test_a_view_that_breaks_stops_the_service_instead_of_growing_old(
    kafka: str, tmp_path: Path, project: str
) -> None:
    made = service(kafka, tmp_path, project)
    view: View[Any] = made.view(topics.PROJECT_DECLARED)

    def observe(event: Envelope[Any]) -> None:
        if event.project == project:
            raise ZeroDivisionError("a bug")

    view.on_change(observe)
    async with Bus(kafka) as bus, running(made):
        await bus.publish(declared(project))
        await until(lambda: made.failure is not None)
    assert isinstance(made.failure, ZeroDivisionError)


async def test_a_tombstone_takes_a_project_from_views_that_follow_and_from_those_that_start(
    kafka: str, tmp_path: Path, project: str
) -> None:
    async def start() -> tuple[Service, View[Any]]:
        made = service(kafka, tmp_path, project)
        return made, made.view(topics.PROJECT_DECLARED)

    removed: list[str] = []
    (first, view), other = await start(), f"{project}-other"
    view.on_removal(removed.append)
    async with Bus(kafka) as bus, running(first):
        await bus.publish(declared(project), declared(other))
        assert await view.fresh(other) is not None
        assert view.get(project) is not None
        await first.take_back(topics.PROJECT_DECLARED, project)
        await until(lambda: view.get(project) is None)
        assert project in removed
        second, late = await start()
        async with running(second):
            assert (late.get(project), late.get(other) is None) == (None, False)
        assert project not in await declared_projects({"bootstrap_servers": kafka})
        await bus.publish(declared(project))
        assert await view.fresh(project) is not None


async def test_a_start_that_fails_at_its_last_step_is_repeated_from_the_first(
    kafka: str, tmp_path: Path, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, seen = service(kafka, tmp_path, project), list[str]()
    view: View[Any] = made.view(topics.PROJECT_DECLARED)
    made.view(topics.SERVING_DESIRED)
    opened: list[AIOKafkaConsumer] = []
    begin, connect = AIOKafkaConsumer.start, made.subscriptions.broker.start
    attempts = iter([KafkaConnectionError("no broker yet")])

    @made.on(topics.DATASET_REQUESTED)
    async def on_dataset_requested(event: Envelope[DatasetRequested]) -> None:
        if event.project == project:
            seen.append(event.data.request)

    async def start(consumer: AIOKafkaConsumer) -> None:
        opened.append(consumer)
        await begin(consumer)

    async def fail_once() -> None:
        await connect()
        for error in attempts:
            raise error

    monkeypatch.setattr(AIOKafkaConsumer, "start", start)
    monkeypatch.setattr(made.subscriptions.broker, "start", fail_once)
    async with Bus(kafka) as bus, running(made):
        await bus.publish(declared(project), request(project, "one"))
        await until(lambda: seen == ["one"])
        assert await view.fresh(project) is not None
    assert len(opened) > 4  # two views and a subscriber, twice
    assert all(consumer._closed for consumer in opened)


async def test_one_process_at_a_time_is_active_and_the_next_takes_over(
    kafka: str, tmp_path: Path, project: str
) -> None:
    services = [service(kafka, tmp_path, project) for _ in range(2)]
    seen: list[list[str]] = [[], []]
    replayed: list[list[str]] = [[], []]

    def attach(index: int) -> None:
        made = services[index]
        made.one_at_a_time(topics.PROJECT_DECLARED, hot_standby=True)

        def apply(event: Envelope[DatasetRequested]) -> None:
            if event.project == project:
                replayed[index].append(event.data.request)

        made.replay((topics.DATASET_REQUESTED,), apply)

        @made.on(topics.DATASET_REQUESTED)
        async def on_dataset_requested(event: Envelope[DatasetRequested]) -> None:
            if event.project == project:
                seen[index].append(event.data.request)

    attach(0)
    attach(1)
    async with Bus(kafka) as bus:
        async with running(services[0]):
            waiting = asyncio.create_task(Lifecycle(services[1]).serve())
            standing_by = {"service": project, "ready": True, "role": "standby"}
            await until(lambda: services[1].health.state() == standing_by)
            for n in range(20):  # over all partitions of the topic, and over a rebalance or two
                await bus.publish(request(f"{project}", f"{n}"))
                await asyncio.sleep(0.1)
            await until(lambda: len(seen[0]) == 20)
            await until(lambda: len(replayed[1]) == 20)  # it follows the log meanwhile
            assert services[1].health.state() == standing_by
            assert not services[1].health.is_reading
            assert seen[1] == []
            watch = services[0].broker_watch
            await watch.look()
            assert watch.silent_seconds == 0
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not watch.lag or any(watch.lag.values()):  # until the last commit
                    await watch._look_at_lag()
            groups = {(group, topic) for group, topic, _ in watch.lag}
            assert groups == {(f"{project}.dataset-requested", "dataset.requested")}
        await until(lambda: services[1].health.state() == standing_by | {"role": "active"})
        await bus.publish(request(project, "last"))
        await until(lambda: seen[1] == ["last"])
        services[1].stop()
        await waiting
    assert [made.failure for made in services] == [None, None]


ACTIVE = """
import asyncio, sys
from tunewheel_contracts import topics
from tunewheel_contracts.events.training import TrainControl
from tunewheel_runtime.process import run
from tunewheel_runtime.service import Service
from tunewheel_runtime.settings import ServiceSettings

service = Service(sys.argv[1], ServiceSettings())
service.one_at_a_time(topics.PROJECT_DECLARED)

@service.on_startup
async def publish_when_asked():
    def publish():
        data = TrainControl(project=sys.argv[1], run_id="run-1", action="pause", request=sys.stdin.readline())
        publishing.add(asyncio.create_task(service.publish(service.new(data))))
    publishing = set()
    asyncio.get_running_loop().add_reader(sys.stdin, publish)

run(service)
"""


@pytest.mark.nightly("fencing")
async def test_a_process_that_stalled_gives_up_when_another_became_the_active_one(
    kafka: str, tmp_path: Path, project: str
) -> None:
    environment = os.environ | {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
        "TUNEWHEEL_STORE_URL": (tmp_path / "store").as_uri(),
        "TUNEWHEEL_SESSION_TIMEOUT_MS": "6000",
    }
    pipes = {"stdin": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    stalled = await asyncio.create_subprocess_exec(
        sys.executable, "-c", ACTIVE, project, env=environment, **pipes
    )
    assert stalled.stderr is not None
    assert stalled.stdin is not None
    bus = await Bus(kafka).__aenter__()
    try:
        stalled.stdin.write(b"active\n")
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for line in stalled.stderr:
                if b'"event": "ready"' in line:
                    break
        await bus.collect(topics.TRAIN_CONTROL, 1, where=lambda e: e.project == project)
        stalled.send_signal(signal.SIGSTOP)
        other = service(kafka, tmp_path, project)
        other.one_at_a_time(topics.PROJECT_DECLARED)
        async with running(other):
            stalled.stdin.write(b"stale\n")  # what it was about to publish
            stalled.send_signal(signal.SIGCONT)
            said = await asyncio.wait_for(stalled.stderr.read(), PATIENCE_SECONDS)
            assert await stalled.wait() == 1
            assert b"LeadershipLost" in said
            assert other.health.ready
            data = TrainControl(project=project, run_id="run-1", action=TrainAction.PAUSE, request="last")
            await other.publish(other.new(data))
        found = await bus.collect(topics.TRAIN_CONTROL, 2, where=lambda e: e.project == project)
        assert [event.data.request.strip() for event in found] == ["active", "last"]
    finally:
        await bus.__aexit__()
        if stalled.returncode is None:
            stalled.kill()


async def test_a_dropped_publisher_sends_nothing_that_waits(kafka: str, tmp_path: Path, project: str) -> None:
    async with Bus(kafka) as bus, running(service(kafka, tmp_path, project)) as made:
        await made.publish(request(project, "acknowledged"))
        waiting = asyncio.create_task(made.publish(request(project, "waiting")))
        await asyncio.sleep(0)  # the record is in the producer, whose sender has not run yet
        made.publisher.drop()
        waiting.cancel()
        with pytest.raises(LeadershipLost):
            await made.publish(request(project, "later"))
        await made.publisher.stop()
        await bus.publish(request(project, "end"))
        found = await bus.collect(topics.DATASET_REQUESTED, 2, where=lambda e: e.project == project)
    assert [event.data.request for event in found] == ["acknowledged", "end"]


async def test_a_publisher_that_another_one_fenced_publishes_nothing_more(
    kafka: str, tmp_path: Path, project: str
) -> None:
    older, newer = (service(kafka, tmp_path, project).publisher for _ in range(2))
    told: list[LeadershipLost] = []
    for publisher in (older, newer):
        publisher.transactional_id, publisher.lost = f"{project}.active", told.append
        await publisher.start()
    async with Bus(kafka) as bus:
        await older.fence()
        await older.publish(request(project, "first"))
        cancelled = asyncio.create_task(older.publish(request(project, "cancelled")))
        await asyncio.sleep(0)
        cancelled.cancel()
        await older.publish_many([request(project, f"{n}") for n in range(3)])
        await newer.fence()
        with pytest.raises(LeadershipLost):
            await older.publish(request(project, "stale"))
        assert len(told) == 1
        older.drop()
        with pytest.raises(LeadershipLost):
            await older.publish(request(project, "later"))
        await newer.publish(request(project, "last"))
        found = await bus.collect(topics.DATASET_REQUESTED, 6, where=lambda e: e.project == project)
    for publisher in (older, newer):
        await publisher.stop()
    seen = [event.data.request for event in found]
    assert sorted(seen) == ["0", "1", "2", "cancelled", "first", "last"]


async def test_a_batch_is_whole_and_a_bad_record_in_it_is_dead_lettered(
    kafka: str, tmp_path: Path, project: str
) -> None:
    made, got = service(kafka, tmp_path, project), list[Delivery[RecordIngested]]()

    @made.on_batch(topics.RECORD_INGESTED)
    async def on_record_ingested(deliveries: Sequence[Delivery[RecordIngested]]) -> None:
        got.extend(d for d in deliveries if d.event.project == project)

    async with Bus(kafka) as bus, running(made):
        await bus.publish(*(record(project, n) for n in range(50)))
        await bus.send("record.ingested", b"k", b"not json", record(project, 0).to_kafka().headers)
        await bus.publish(*(record(project, n) for n in range(50, 100)))
        await until(lambda: len({d.event.id for d in got}) == 100)
        assert (await bus.dead_letters("record.ingested", 1))[0].value == b"not json"
    assert len({(d.position.partition, d.position.offset) for d in got}) == 100


def in_a_partition_that_moves(project: str) -> str:
    """Return a project of a name like ``project`` whose requests are in the last partition: whoever joins a
    worker that has all of them is given that one."""
    count = topics.DATASET_REQUESTED.partitions
    names = (f"{project}-{n}" for n in range(100))
    keys = ((name, request(name, "any").to_kafka().key) for name in names)
    return next(name for name, key in keys if (murmur2(key) & 0x7FFFFFFF) % count == count - 1)


@pytest.mark.parametrize("in_order", [pytest.param(False, marks=pytest.mark.nightly("matrices")), True])
async def test_a_job_stops_when_its_partition_moves_and_only_one_result_is_published(
    kafka: str, tmp_path: Path, project: str, in_order: bool
) -> None:
    project = in_a_partition_that_moves(project)
    workers = [service(kafka, tmp_path, project) for _ in range(2)]
    running_jobs: list[list[str]] = [[], []]
    stopped: list[list[str]] = [[], []]
    finish = asyncio.Event()

    def attach(index: int) -> None:
        made = workers[index]

        @made.job(topics.DATASET_REQUESTED, in_order=in_order)
        async def work(event: Envelope[DatasetRequested], lease: Lease) -> Envelope[TrainControl] | None:
            if event.project != project:
                return None
            running_jobs[index].append(event.id)
            done, lost = asyncio.create_task(finish.wait()), asyncio.create_task(lease.lost.wait())
            await asyncio.wait({done, lost}, return_when=asyncio.FIRST_COMPLETED)
            if lease.lost.is_set():
                stopped[index].append(event.id)
            data = TrainControl(
                project=project, run_id=f"by-{index}", action=TrainAction.PAUSE, request=event.data.request
            )
            return made.new(data, cause=event)  # published only while the lease holds

    attach(0)
    attach(1)
    async with Bus(kafka) as bus, running(workers[0]):
        event = request(project, "long")
        await bus.publish(event)
        await until(lambda: running_jobs[0] == [event.id])
        async with running(workers[1]):
            moved = asyncio.create_task(until(lambda: bool(stopped[0]) or bool(running_jobs[1])))
            done, _ = await asyncio.wait({moved}, timeout=15)
            if not done:  # another test added partitions, and the busy one stayed: let the owner leave
                moved.cancel()
                workers[0].stop()
            await until(lambda: running_jobs[1] == [event.id])
            await until(lambda: stopped[0] == [event.id])
            finish.set()
            out = await bus.collect(topics.TRAIN_CONTROL, 1, where=lambda e: e.project == project)
            assert [e.data.run_id for e in out] == ["by-1"]
            await bus.publish(request(project, "last"))
            out = await bus.collect(topics.TRAIN_CONTROL, 2, where=lambda e: e.project == project)
            assert [(e.data.request, e.data.run_id) for e in out] == [("long", "by-1"), ("last", "by-1")]


async def test_jobs_beside_each_other_are_committed_without_a_gap(
    kafka: str, tmp_path: Path, project: str
) -> None:
    """One key, one partition: the first waits, the others end; a restart repeats what followed the first."""
    told: list[str] = []
    free = asyncio.Event()

    def worker() -> Service:
        made = service(kafka, tmp_path, project)

        @made.job(topics.DATASET_REQUESTED)
        async def work(event: Envelope[DatasetRequested], lease: Lease) -> Envelope[TrainControl] | None:
            if event.project != project:
                return None
            name = event.data.request
            told.append(name)
            if name == "paused":
                waits = [asyncio.create_task(free.wait()), asyncio.create_task(lease.lost.wait())]
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            data = TrainControl(project=project, run_id=f"run-{name}", action=TrainAction.PAUSE, request=name)
            return made.new(data, cause=event)

        return made

    async def answers(count: int) -> list[str]:
        found = await bus.collect(topics.TRAIN_CONTROL, count, where=lambda e: e.project == project)
        return [event.data.request for event in found]

    async with Bus(kafka) as bus:
        async with running(worker()):
            await bus.publish(*(request(project, name) for name in ("paused", "second", "third")))
            assert sorted(await answers(2)) == ["second", "third"]
        assert told == ["paused", "second", "third"]
        free.set()
        async with running(worker()):
            assert sorted((await answers(5))[2:]) == ["paused", "second", "third"]
            await bus.publish(request(project, "last"))
            await answers(6)
        async with running(worker()):
            await bus.publish(request(project, "new"))
            assert (await answers(7))[6] == "new"
    assert told[6:] == ["last", "new"]


async def test_views_are_complete_before_the_first_event_and_follow(
    kafka: str, tmp_path: Path, project: str
) -> None:
    async with Bus(kafka) as bus:
        await bus.publish(declared(project), declared(project, description="newer"))
        made = service(kafka, tmp_path, project)
        view: View[Any] = made.view(topics.PROJECT_DECLARED)
        async with running(made):
            assert view.get(project).data.spec.description == "newer"
            await bus.publish(declared(f"{project}-b"))
            assert (await view.fresh(f"{project}-b")) is not None
            assert (await view.fresh("never-declared")) is None


async def test_a_burst_of_unknown_keys_does_not_wait_for_the_poll_that_follows_the_log(
    kafka: str, tmp_path: Path, project: str
) -> None:
    """Behind the follower's long poll each look would take half a second: more than patience has for all."""
    made = service(kafka, tmp_path, project)
    view: View[Any] = made.view(topics.PROJECT_DECLARED)
    async with running(made), asyncio.timeout(PATIENCE_SECONDS):
        for number in range(4 * int(PATIENCE_SECONDS)):
            assert await view.fresh(f"{project}-unknown-{number}") is None


class Watched:
    """A consumer at the end of a topic's partition 0, with the longest waits of its ``fetches``."""

    def __init__(self, consumer: LongPolling) -> None:
        self.consumer, self.fetches = consumer, list[int]()
        send = consumer._send

        async def noted(node: int, request: Any, **options: Any) -> Any:
            if hasattr(request, "_max_wait_ms"):
                self.fetches.append(request._max_wait_ms)
            return await send(node, request, **options)

        consumer._send = noted

    async def waits_long(self) -> int:
        """Return how many fetches there were until one waits long."""
        await until(lambda: self.fetches[-1:] == [POLL_MS])
        return len(self.fetches)

    async def fetch(self, number: int) -> int:
        """Return how long fetch ``number`` waits, once it is sent."""
        await until(lambda: len(self.fetches) > number)
        return self.fetches[number]

    @property
    def connection(self) -> Any:
        (found,) = [c for (_, group), c in self.consumer._client._conns.items() if group > 1]
        return found


@pytest.fixture
async def watched(kafka: str) -> AsyncIterator[Watched]:
    consumer = make_consumer({"bootstrap_servers": kafka}, auto_offset_reset="latest")
    await consumer.start()
    consumer.assign([at := TopicPartition("dataset.requested", 0)])
    await consumer.position(at)
    yield Watched(consumer)
    await consumer.stop()


async def send_to(kafka: str, partition: int, *values: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=kafka) as producer:
        sent = [await producer.send("dataset.requested", value, partition=partition) for value in values]
        await asyncio.gather(*sent)


async def test_the_next_record_ends_the_long_wait_of_an_idle_consumer_and_no_query_waits_for_it(
    kafka: str, watched: Watched
) -> None:
    at = TopicPartition("dataset.requested", 0)
    for value in (b"one", b"two"):
        fetches = await watched.waits_long()
        assert await watched.consumer.end_offsets([at]) == {at: await watched.consumer.position(at)}
        await send_to(kafka, 0, value)
        found = await watched.consumer.getmany(timeout_ms=10 * POLL_MS)
        assert [record.value for record in found[at]] == [value]
        assert await watched.fetch(fetches) < POLL_MS, "the long wait ended without the record"


async def test_no_fetch_waits_long_while_records_wait_here(kafka: str, watched: Watched) -> None:
    watched.consumer.assign(places := [TopicPartition("dataset.requested", n) for n in (0, 1)])
    for at in places:
        await watched.consumer.position(at)
    await watched.waits_long()
    await send_to(kafka, 0, b"one", b"two")
    assert (await watched.consumer.getone()).value == b"one"
    fetches = len(watched.fetches)
    assert POLL_MS not in {await watched.fetch(fetches + n) for n in range(2)}
    assert (await watched.consumer.getone()).value == b"two"
    assert not await watched.consumer.getmany()
    await watched.waits_long()


async def test_another_assignment_does_not_wait_for_the_abandoned_fetch(kafka: str, watched: Watched) -> None:
    await watched.waits_long()
    abandoned = watched.connection
    watched.consumer.assign([at := TopicPartition("dataset.requested", 1)])
    await watched.consumer.position(at)
    await send_to(kafka, 1, b"here")
    assert (await watched.consumer.getone()).value == b"here"
    assert watched.connection is not abandoned
    assert not abandoned.connected()


async def test_one_trace_spans_every_hop(kafka: str, tmp_path: Path, project: str) -> None:
    spans = InMemorySpanExporter()
    telemetry = make_telemetry("test", None, span_processors=[SimpleSpanProcessor(spans)])
    made = service(kafka, tmp_path, project, telemetry=telemetry)

    @made.on_each(topics.RECORD_INGESTED)
    def each(event: Envelope[RecordIngested]) -> Envelope[DatasetRequested] | None:
        if event.project != project:
            return None
        return made.new(request(project, event.data.record_id).data, cause=event)

    @made.on(topics.DATASET_REQUESTED)
    async def one(event: Envelope[DatasetRequested]) -> Envelope[TrainControl] | None:
        if event.project != project:
            return None
        data = TrainControl(project=project, run_id="run-1", action=TrainAction.PAUSE, request="x")
        return made.new(data, cause=event)

    trace_id = "0af7651916cd43dd8448eb211c80319c"
    async with Bus(kafka) as bus, running(made):
        first = record(project, 1).to_kafka()
        headers = first.headers | {"traceparent": f"00-{trace_id}-b7ad6b7169203331-01".encode()}
        await bus.send(first.topic, first.key, first.value, headers)
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for raw in bus.read("train.control"):
                event = Envelope.from_kafka(TrainControl, raw.value, raw.headers)
                if event.project == project:
                    assert dict(raw.headers)["traceparent"].decode().split("-")[1] == trace_id
                    break


async def test_health_tells_live_from_ready(kafka: str, tmp_path: Path, project: str) -> None:
    made = service("127.0.0.1:1", tmp_path, project)
    task = asyncio.create_task(Lifecycle(made).serve())
    async with httpx.AsyncClient(timeout=PATIENCE_SECONDS) as client:
        await until(lambda: made.doors.health_port is not None)
        url = f"http://127.0.0.1:{made.doors.health_port}/health"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                try:
                    live = await client.get(f"{url}/live")
                    break
                except httpx.ConnectError:
                    await asyncio.sleep(0.02)
        assert live.status_code == 200
        assert (await client.get(f"{url}/ready")).status_code == 503
    made.stop()
    await task
    assert made.failure is None


async def test_a_signal_stops_it_cleanly(kafka: str, tmp_path: Path) -> None:
    environment = os.environ | {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
        "TUNEWHEEL_STORE_URL": (tmp_path / "store").as_uri(),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tunewheel_ingest.main", env=environment, stderr=asyncio.subprocess.PIPE,
        limit=8 << 20,  # a dead letter that another test left may be logged
    )  # fmt: skip
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for line in process.stderr:
            if b'"event": "ready"' in line:
                break
        process.send_signal(signal.SIGTERM)
        await process.stderr.read()
        assert await process.wait() == 0


async def test_installations_with_different_prefixes_share_a_broker(kafka: str, tmp_path: Path) -> None:
    """Handlers, the active process's group, views, dead letters and the lag, each under its own names."""
    seen: dict[str, list[str]] = {"a.": [], "b.": []}
    made: dict[str, Service] = {}
    for prefix, handled in seen.items():
        one = made[prefix] = service(kafka, tmp_path, "sharing", topic_prefix=prefix)
        wanted = {t.name: t for t in wanted_topics((topics.DATASET_REQUESTED, topics.PROJECT_DECLARED))}
        await ensure_topics(client_options(one.settings), wanted.values())
        one.one_at_a_time(topics.PROJECT_DECLARED)
        one.view(topics.DATASET_REQUESTED).on_change(
            lambda e, to=handled: to.append(f"view {e.data.request}")
        )

        @one.on(topics.DATASET_REQUESTED)
        async def handle(event: Envelope[DatasetRequested], to: list[str] = handled) -> None:
            to.append(event.data.request)
            if event.data.request == "bad":
                raise InvalidEvent(field="request", reason="is bad; send a good one")

    ours = client_options(made["a."].settings)
    async with running(made["a."]), running(made["b."]):
        await publish_events(ours, request("p", "bad"), request("p", "good"))
        await until(lambda: {"view bad", "view good", "bad", "good"} <= set(seen["a."]))
        (letter,) = [letter async for letter in read_dead_letters(ours, (topics.DATASET_REQUESTED,))]
        present = {one.group: one.hosts for one in await read_lag(ours) if one.hosts}
    assert (letter.topic, letter.reason) == ("dataset.requested", "is bad; send a good one")
    assert seen["b."] == [], "the other installation has topics of its own"
    assert present["sharing.dataset-requested"] == ("127.0.0.1",)
    lag = {(one.group, one.topic): one.behind for one in await read_lag(ours)}
    assert lag["sharing.dataset-requested", "dataset.requested"] == 0
    assert lag["curate.dataset-requested", "dataset.requested"] == 2, "nobody reads for it: all waits"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    groups = {group for group, _ in await admin.list_consumer_groups() if "sharing." in group}
    await admin.close()
    assert groups == {f"{p}sharing.{of}" for p in seen for of in ("active", "dataset-requested")}
