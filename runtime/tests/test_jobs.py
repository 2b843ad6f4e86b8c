"""A job publishes while its lease holds; what it published is done, whatever happens then."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.data import BuildReason, DatasetRequested
from tunewheel_runtime.consuming import Consumption
from tunewheel_runtime.handling import Instruments
from tunewheel_runtime.jobs import Lease, LeaseListener, consume_job
from tunewheel_runtime.retry import Backoff
from tunewheel_runtime.telemetry import make_telemetry

EVENT = new_event(DatasetRequested(project="desk", reason=BuildReason.COMMAND, request="one"), source="/test")
PARTITION = TopicPartition("dataset.requested", 0)


class Worker:
    """Whose service is told to stop at a moment of a job: ``working`` or ``publishing``."""

    def __init__(self, stops: str) -> None:
        self.stops = stops
        self.listener = LeaseListener()
        self.published: list[Envelope[Any]] = []
        self.settled: list[int] = []
        self.spans = InMemorySpanExporter()
        self.telemetry = make_telemetry("test", None, span_processors=[SimpleSpanProcessor(self.spans)])

    def at(self, moment: str) -> None:
        if moment == self.stops:
            self.listener.close("the service is stopping")

    async def publish_many(self, envelopes: list[Envelope[Any]]) -> None:
        self.published += envelopes
        self.at("publishing")

    async def run(self) -> None:
        instruments = Instruments.of(self.telemetry)
        publisher: Any = self
        letters: Any = SimpleNamespace(passed=lambda *_: None)
        sent = EVENT.to_kafka()
        record: Any = ConsumerRecord(
            PARTITION.topic, 0, 7, 0, 0, sent.key, sent.value, None, 0, 0, tuple(sent.headers.items())
        )
        consumer: Any = SimpleNamespace(assignment=lambda: {PARTITION})

        async def work(event: Envelope[Any], lease: Lease) -> Envelope[Any]:
            self.at("working")
            assert self.listener.running == 1
            assert not self.spans.get_finished_spans(), "its span ends with the job"
            return event

        async def settle(record: Any, consumer: Any) -> None:
            self.settled.append(record.offset)

        consumption = Consumption(publisher, letters, Backoff(1, 0.001, 0.001), instruments)
        await consume_job(
            consumption, topics.DATASET_REQUESTED, work, self.listener, record, consumer, settle
        )


@pytest.mark.parametrize(("stops", "done"), [("never", True), ("publishing", True), ("working", False)])
async def test_a_job_is_settled_if_its_result_is_on_the_log(stops: str, done: bool) -> None:
    worker = Worker(stops)
    await worker.run()
    assert (len(worker.published), worker.settled) == ((1, [7]) if done else (0, []))
    assert worker.listener.running == 0
    (span,) = worker.spans.get_finished_spans()
    outcome = "done" if done else "stopped"
    assert (span.attributes or {})["tunewheel.outcome"] == outcome
    assert f'topic="dataset.requested",outcome="{outcome}"}} 1' in worker.telemetry.metrics_text()
