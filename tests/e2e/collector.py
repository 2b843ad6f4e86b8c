"""A collector of OpenTelemetry: takes OTLP over HTTP and keeps what it was told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    service: str
    name: str
    trace_id: bytes
    seconds: float
    attributes: dict[str, Any]


@dataclass
class Collector:
    """Listens during the ``with``; what it was told stays."""

    spans: list[Span] = field(default_factory=list)
    logs: set[tuple[str, str]] = field(default_factory=set)
    """Service and event of each line."""
    metrics: set[tuple[str, str]] = field(default_factory=set)
    """Service and name."""
    url: str = ""

    def __enter__(self) -> Self:
        taken = {"/v1/traces": self._traces, "/v1/logs": self._logs, "/v1/metrics": self._metrics}

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                taken[self.path](self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _traces(self, body: bytes) -> None:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _service_of(resource)
            for span in (span for scope in resource.scope_spans for span in scope.spans):
                seconds = (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9
                told = _attributes(span.attributes)
                self.spans.append(Span(service, span.name, span.trace_id, seconds, told))

    def _logs(self, body: bytes) -> None:
        for resource in ExportLogsServiceRequest.FromString(body).resource_logs:
            records = (record for scope in resource.scope_logs for record in scope.log_records)
            self.logs |= {(_service_of(resource), record.body.string_value) for record in records}

    def _metrics(self, body: bytes) -> None:
        for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            found = (metric for scope in resource.scope_metrics for metric in scope.metrics)
            self.metrics |= {(_service_of(resource), metric.name) for metric in found}


def _service_of(resource: Any) -> str:
    return _attributes(resource.resource.attributes)["service.name"].removeprefix("tunewheel-")


def _attributes(pairs: Iterable[Any]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value") for pair in pairs}
