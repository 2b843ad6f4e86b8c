"""Where telemetry goes, and by which names a process is known there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import version
from threading import Thread

import pytest
from tunewheel_runtime.telemetry import make_telemetry
from tunewheel_runtime.worker_spans import trace_environment, worker_span

VARIABLES = [f"OTEL_EXPORTER_OTLP_{of}ENDPOINT" for of in ("", "TRACES_", "METRICS_", "LOGS_")]


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*VARIABLES, "TUNEWHEEL_OTLP_ENDPOINT", "TRACEPARENT", "OTEL_LOGS_EXPORTER"):
        monkeypatch.delenv(name, raising=False)


class Collector:
    """Takes whatever is posted."""

    def __init__(self) -> None:
        self.posted: dict[str, bytes] = {}
        posted = self.posted

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                posted[self.path] = self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def say(telemetry: object) -> None:
    from tunewheel_runtime.telemetry import Telemetry

    assert isinstance(telemetry, Telemetry)
    with telemetry.tracer.start_as_current_span("span"):
        telemetry.meter.create_counter("counted").add(1)
        if telemetry.logger_provider is not None:
            telemetry.logger_provider.get_logger("test").emit(body="said")
    telemetry.shutdown()


def test_our_setting_and_the_sdks_own_variables_name_the_collector(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = {"/v1/traces", "/v1/metrics", "/v1/logs"}
    say(make_telemetry("curate", collector.url))
    assert set(collector.posted) == signals
    assert b"tunewheel-curate" in collector.posted["/v1/logs"]
    collector.posted.clear()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("OTEL_LOGS_EXPORTER", "none")
    say(make_telemetry("curate", None))
    assert set(collector.posted) == signals - {"/v1/logs"}


def test_without_a_collector_there_are_metrics_alone() -> None:
    telemetry = make_telemetry("curate", None)
    telemetry.meter.create_counter("tunewheel.counted").add(2)
    assert (telemetry.traces, telemetry.logger_provider) == (False, None)
    assert 'tunewheel_counted_total{service="curate"} 2' in telemetry.metrics_text()


@pytest.mark.parametrize("instance", ["curate-7", None])
def test_a_process_says_which_release_and_which_instance_it_is(instance: str | None) -> None:
    telemetry = make_telemetry("runtime", None, instance=instance)
    telemetry.meter.create_counter("counted").add(1)
    told = telemetry.metrics_text().splitlines()
    (line,) = (line for line in told if line.startswith("target_info{"))
    assert f'service_version="{version("tunewheel-runtime")}"' in line
    assert 'service_name="tunewheel-runtime"' in line
    assert 'service="runtime"' in line
    assert f'service_instance_id="{instance or ""}' in line


def test_attributes_that_operators_name_are_labels_that_prometheus_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = "k8s.pod-name=a-1,cost--centre=b,2nd=c,service=x"
    alike = "deployment.environment=prod,deployment-environment=eu"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"{given},{alike}")
    telemetry = make_telemetry("runtime", None)
    telemetry.meter.create_counter("counted").add(1)
    told = telemetry.metrics_text().splitlines()
    (line,) = (line for line in told if line.startswith("target_info{"))
    labels = dict(re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)="([^"]*)"', line))
    # Nothing else stands in the line: every name is one that Prometheus reads.
    read = ",".join(f'{name}="{value}"' for name, value in labels.items())
    assert line.rpartition(" ")[0] == f"target_info{{{read}}}"
    assert labels["k8s_pod_name"] == "a-1"
    assert labels["cost_centre"] == "b"
    assert labels["key_2nd"] == "c"
    assert labels["deployment_environment"] == "eu;prod"
    assert labels["service"] == "runtime"


def test_a_workers_span_is_in_the_trace_that_its_parent_hands_down(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert trace_environment() == {}
    telemetry = make_telemetry("train", collector.url)
    with telemetry.tracer.start_as_current_span("job") as span:
        handed = trace_environment()
    monkeypatch.setenv("TUNEWHEEL_OTLP_ENDPOINT", collector.url)
    monkeypatch.setenv("TRACEPARENT", handed["TRACEPARENT"])
    with worker_span("train", "training"):
        within = trace_environment()
    trace_id = span.get_span_context().trace_id
    assert within["TRACEPARENT"].split("-")[1] == format(trace_id, "032x")
    assert trace_id.to_bytes(16, "big") in collector.posted["/v1/traces"]
    assert b"training" in collector.posted["/v1/traces"]
    with worker_span("curate", "build", {"traceparent": f"00-{7:032x}-{8:016x}-01"}):
        assert trace_environment()["TRACEPARENT"].split("-")[1] == format(7, "032x")
