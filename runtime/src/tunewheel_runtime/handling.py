"""Traces and measures each call of a handler: a span in the event's trace, and the duration.

A call handles one event, one batch of events, or one job from its start to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from aiokafka import ConsumerRecord
from opentelemetry import metrics, trace
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, Status, StatusCode
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import TopicSpec

from tunewheel_runtime.metrics import WORK_SECONDS
from tunewheel_runtime.telemetry import Telemetry, extract

Record = ConsumerRecord[bytes, bytes]
MOST_LINKS = 64
"""Most links from a batch's span to the traces of its records."""


class Outcome(StrEnum):
    DONE = "done"
    REFUSED = "refused"
    """The event, or one event of the batch, became a dead letter."""
    STOPPED = "stopped"
    """The job's lease went to another process, or the service is stopping. The event is delivered again."""
    FAILED = "failed"
    """An error stops the service."""


@dataclass
class Handling:
    """One running call. Its outcome is ``DONE`` unless another one is set."""

    outcome: Outcome = Outcome.DONE

    def is_of(self, event: Envelope[Any]) -> None:
        """Set the event's attributes on the span."""
        span = trace.get_current_span()
        span.set_attribute("messaging.message.id", event.id)
        span.set_attribute("tunewheel.project", event.project)


@dataclass(frozen=True, slots=True)
class Instruments:
    """The tracer and the metrics that all subscriptions of a service share."""

    tracer: trace.Tracer
    traces: bool
    consumed: metrics.Counter
    seconds: metrics.Histogram

    @classmethod
    def of(cls, telemetry: Telemetry) -> Instruments:
        meter = telemetry.meter
        return cls(
            tracer=telemetry.tracer,
            traces=telemetry.traces,
            consumed=meter.create_counter("tunewheel.events.consumed", description="Events read, by topic"),
            seconds=meter.create_histogram(
                "tunewheel.handler.seconds",
                "s",
                "Calls of handlers (an event, a job to its end, or a batch), by topic and outcome",
                explicit_bucket_boundaries_advisory=list(WORK_SECONDS),
            ),
        )

    @contextlib.contextmanager
    def handling(self, spec: TopicSpec, records: Sequence[Record]) -> Generator[Handling]:
        """Trace and measure the ``with`` block, which handles ``records``, as one call."""
        handling, started = Handling(), time.perf_counter()
        with self._span(spec, records) as span:
            try:
                yield handling
            except asyncio.CancelledError:
                handling.outcome = Outcome.STOPPED
                raise
            except BaseException:
                handling.outcome = Outcome.FAILED
                span.set_status(Status(StatusCode.ERROR))
                raise
            finally:
                span.set_attribute("tunewheel.outcome", handling.outcome.value)
                labels = {"topic": spec.name, "outcome": handling.outcome.value}
                self.seconds.record(time.perf_counter() - started, labels)

    @contextlib.contextmanager
    def _span(self, spec: TopicSpec, records: Sequence[Record]) -> Generator[trace.Span]:
        if not self.traces:
            yield trace.INVALID_SPAN
            return
        contexts = [_context(record) for record in records[:MOST_LINKS]]
        with self.tracer.start_as_current_span(
            f"{spec.name} process",
            context=contexts[0] if len(records) == 1 else Context(),
            kind=SpanKind.CONSUMER,
            links=[] if len(records) == 1 else [link for context in contexts for link in _links(context)],
            attributes={
                "messaging.system": "kafka",
                "messaging.operation.type": "process",
                "messaging.destination.name": spec.name,
                "messaging.batch.message_count": len(records),
            },
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            yield span


def _context(record: Record) -> Context:
    return extract({name: value or b"" for name, value in record.headers})


def _links(context: Context) -> Iterator[Link]:
    found = trace.get_current_span(context).get_span_context()
    if found.is_valid:
        yield Link(found)
