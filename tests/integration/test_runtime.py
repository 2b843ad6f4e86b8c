"""The runtime on a real broker: what an error does, who owns a job, what a restart repeats."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tunewheel_contracts import topics
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested, RecordIngested, RecordKind
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_runtime.service import Delivery, Lease, Service
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_runtime.view import View

from .bus import PATIENCE_SECONDS, Bus, running, until
from .specs import declared

pytestmark = pytest.mark.integration


def service(kafka: str, tmp_path: Path, name: str, **options: Any) -> Service:
    telemetry = options.pop("telemetry", None)
    quick = {"retry_first_delay_seconds": 0.01, "retry_max_delay_seconds": 0.05, "session_timeout_ms": 6_000}
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


async def test_a_job_stops_when_its_partition_moves_and_only_one_result_is_published(
    kafka: str, tmp_path: Path, project: str
) -> None:
    workers = [service(kafka, tmp_path, project) for _ in range(2)]
    running_jobs: list[list[str]] = [[], []]
    stopped: list[list[str]] = [[], []]
    finish = asyncio.Event()

    def attach(index: int) -> None:
        made = workers[index]

        @made.job(topics.DATASET_REQUESTED)
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
        # One key, one partition: keep joining workers until the busy partition is among those that move.
        event = request(project, "long")
        await bus.publish(event)
        await until(lambda: running_jobs[0] == [event.id])
        async with running(workers[1]):
            moved = asyncio.create_task(until(lambda: bool(stopped[0]) or bool(running_jobs[1])))
            done, _ = await asyncio.wait({moved}, timeout=15)
            if not done:  # the sticky assignor left the busy partition where it was: let the owner leave
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
        async with asyncio.timeout(60):
            async for raw in bus.read("train.control"):
                event = Envelope.from_kafka(TrainControl, raw.value, raw.headers)
                if event.project == project:
                    assert dict(raw.headers)["traceparent"].decode().split("-")[1] == trace_id
                    break


async def test_health_tells_live_from_ready(kafka: str, tmp_path: Path, project: str) -> None:
    made = service("127.0.0.1:1", tmp_path, project)
    task = asyncio.create_task(made.serve())
    async with httpx.AsyncClient() as client:
        await until(lambda: made.http_port is not None)
        url = f"http://127.0.0.1:{made.http_port}/health"
        async with asyncio.timeout(30):
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
        sys.executable, "-m", "tunewheel_ingest.main", env=environment, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    async with asyncio.timeout(90):
        async for line in process.stderr:
            if b'"event": "ready"' in line:
                break
        process.send_signal(signal.SIGTERM)
        await process.stderr.read()
        assert await process.wait() == 0
