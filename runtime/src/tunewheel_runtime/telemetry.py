"""OpenTelemetry of one process: metrics always, traces and logs only if a collector is set.

A collector is set by ``TUNEWHEEL_OTLP_ENDPOINT`` or by the SDK's own environment variables
(``OTEL_EXPORTER_OTLP_ENDPOINT``, ``…_TRACES_ENDPOINT``). The SDK's variables also set all that Tunewheel has
no setting for, such as ``OTEL_EXPORTER_OTLP_HEADERS``.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import metrics, trace
from opentelemetry.sdk._logs import LoggerProvider, LogRecordProcessor
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tunewheel_runtime.prometheus import PREFIX, as_text

_PROPAGATOR = TraceContextTextMapPropagator()
CARRIERS = ("traceparent", "tracestate")
"""Names of the headers of W3C Trace Context."""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """The OpenTelemetry providers of one process. Without an exporter spans are dropped and cost almost
    nothing."""

    tracer: trace.Tracer
    meter: metrics.Meter
    tracer_provider: trace.TracerProvider
    meter_provider: MeterProvider
    logger_provider: LoggerProvider | None
    """None: logs are written to standard error only."""
    reader: InMemoryMetricReader

    @property
    def traces(self) -> bool:
        """Whether spans are exported."""
        return isinstance(self.tracer_provider, TracerProvider)

    def metrics_text(self) -> str:
        """Return the content of ``/metrics``."""
        return as_text(self.reader.get_metrics_data())

    def shutdown(self) -> None:
        """Export what has not been exported yet. If the collector does not answer, each export is given up
        after ``OTEL_EXPORTER_OTLP_TIMEOUT`` (10 s)."""
        if isinstance(self.tracer_provider, TracerProvider):
            self.tracer_provider.shutdown()
        self.meter_provider.shutdown()
        if self.logger_provider is not None:
            self.logger_provider.shutdown()


def make_telemetry(
    service: str,
    endpoint: str | None,
    *,
    instance: str | None = None,
    span_processors: Iterable[SpanProcessor] = (),
    metric_readers: Iterable[MetricReader] = (),
    log_processors: Iterable[LogRecordProcessor] = (),
) -> Telemetry:
    """Build the providers. ``instance``: name of the process; None: host name and process id. The processors
    and readers are for tests and embedding."""
    readers, logs = list(metric_readers), list(log_processors)
    if (target := _target("metrics", endpoint)) is not None:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter

        readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(**target)))
    if (target := _target("logs", endpoint)) is not None:
        from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter

        logs.append(BatchLogRecordProcessor(OTLPLogExporter(**target)))
    resource = _resource(service, instance)
    tracer_provider = make_tracer_provider(
        service, endpoint, instance=instance, span_processors=span_processors
    )
    reader = InMemoryMetricReader()
    meter_provider = MeterProvider(
        metric_readers=[reader, *readers],
        resource=resource,
        exemplar_filter=AlwaysOffExemplarFilter(),
        shutdown_on_exit=False,
    )
    logger_provider = LoggerProvider(resource=resource) if logs else None
    for processor in logs:
        assert logger_provider is not None
        logger_provider.add_log_record_processor(processor)
    return Telemetry(
        tracer=tracer_provider.get_tracer("tunewheel"),
        meter=meter_provider.get_meter("tunewheel"),
        tracer_provider=tracer_provider,
        meter_provider=meter_provider,
        logger_provider=logger_provider,
        reader=reader,
    )


def make_tracer_provider(
    service: str,
    endpoint: str | None,
    *,
    instance: str | None = None,
    span_processors: Iterable[SpanProcessor] = (),
) -> trace.TracerProvider:
    """Build the tracer provider of a process. Without a collector it creates no spans."""
    processors = list(span_processors)
    if (target := _target("traces", endpoint)) is not None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

        processors.append(BatchSpanProcessor(OTLPSpanExporter(**target)))
    if not processors:
        return trace.NoOpTracerProvider()
    provider = TracerProvider(resource=_resource(service, instance))
    for processor in processors:
        provider.add_span_processor(processor)
    return provider


def _target(signal: str, endpoint: str | None) -> dict[str, Any] | None:
    """Return the arguments of the exporter of ``signal``; None: the signal is not exported."""
    if os.environ.get(f"OTEL_{signal.upper()}_EXPORTER") == "none":
        return None
    if endpoint:
        return {"endpoint": f"{endpoint.rstrip('/')}/v1/{signal}"}
    named = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    return {} if any(os.environ.get(name) for name in named) else None


def _resource(service: str, instance: str | None) -> Resource:
    try:
        release = version(f"{PREFIX}{service}")
    except PackageNotFoundError:
        release = version(f"{PREFIX}runtime")
    return Resource.create(
        {
            "service.name": f"{PREFIX}{service}",
            "service.namespace": "tunewheel",
            "service.version": release,
            "service.instance.id": instance or f"{socket.gethostname()}-{os.getpid()}",
        }
    )


def extract(headers: Mapping[str, bytes]) -> otel_context.Context:
    """Return the W3C trace context in a record's headers."""
    return _PROPAGATOR.extract(
        {name: headers[name].decode("ascii", "replace") for name in CARRIERS if name in headers}
    )


def inject() -> dict[str, bytes]:
    """Return the headers of the current trace context; empty outside a trace."""
    return {name: value.encode("ascii") for name, value in carried().items()}


def carried() -> dict[str, str]:
    """Return the headers of ``inject`` as text."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier
