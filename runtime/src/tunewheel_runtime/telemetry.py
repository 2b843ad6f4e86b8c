"""OpenTelemetry: one trace spans a turn of the wheel.

Metric names (all prefixed ``tunewheel.``): ``events.consumed``, ``events.published``,
``events.dead_lettered`` (counters, by topic) and ``handler.seconds`` (histogram).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The providers of one service. Without an exporter they record nothing and cost next to nothing."""

    tracer: trace.Tracer
    meter: metrics.Meter
    tracer_provider: trace.TracerProvider
    meter_provider: metrics.MeterProvider

    @property
    def traces(self) -> bool:
        """Whether spans go anywhere."""
        return isinstance(self.tracer_provider, TracerProvider)

    def shutdown(self) -> None:
        for provider in (self.tracer_provider, self.meter_provider):
            if isinstance(provider, TracerProvider | MeterProvider):
                provider.shutdown()


def make_telemetry(
    service: str,
    endpoint: str | None,
    *,
    span_processors: Iterable[SpanProcessor] = (),
    metric_readers: Iterable[MetricReader] = (),
) -> Telemetry:
    """Build the providers; ``span_processors`` and ``metric_readers`` are for tests and embedding."""
    processors, readers = list(span_processors), list(metric_readers)
    if endpoint:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        base = endpoint.rstrip("/")
        processors.append(BatchSpanProcessor(OTLPSpanExporter(endpoint=f"{base}/v1/traces")))
        exporter = OTLPMetricExporter(endpoint=f"{base}/v1/metrics")
        readers.append(PeriodicExportingMetricReader(exporter))
    resource = Resource.create({"service.name": f"tunewheel-{service}", "service.namespace": "tunewheel"})
    tracer_provider: trace.TracerProvider = trace.NoOpTracerProvider()
    if processors:
        tracer_provider = TracerProvider(resource=resource)
        for processor in processors:
            tracer_provider.add_span_processor(processor)
    meter_provider: metrics.MeterProvider = metrics.NoOpMeterProvider()
    if readers:
        meter_provider = MeterProvider(metric_readers=readers, resource=resource)
    return Telemetry(
        tracer=tracer_provider.get_tracer("tunewheel"),
        meter=meter_provider.get_meter("tunewheel"),
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
    )


def extract(headers: Mapping[str, bytes]) -> otel_context.Context:
    """Read the W3C trace context that a record travelled with."""
    names = ("traceparent", "tracestate")
    return _PROPAGATOR.extract(
        {name: headers[name].decode("ascii", "replace") for name in names if name in headers}
    )


def inject() -> dict[str, bytes]:
    """Return the headers that carry the current trace on; empty outside any trace."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return {name: value.encode("ascii") for name, value in carrier.items()}
