from __future__ import annotations

import json
import logging

import pytest
import structlog
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tunewheel_runtime.logs import configure_logs
from tunewheel_runtime.telemetry import extract, inject, make_telemetry


def test_secrets_never_reach_the_log_and_lines_carry_the_trace(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logs(service="test", level="INFO", json=True)
    telemetry = make_telemetry("test", None, span_processors=[SimpleSpanProcessor(InMemorySpanExporter())])
    with telemetry.tracer.start_as_current_span("span") as span:
        structlog.get_logger().info("hello", sasl_password="hunter2", prompt_tokens=3)
        logging.getLogger("other").warning("from the standard library")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    trace_id = format(span.get_span_context().trace_id, "032x")
    assert [line["trace_id"] for line in lines] == [trace_id, trace_id]
    assert lines[0]["sasl_password"] == "***"
    assert lines[0]["prompt_tokens"] == 3
    assert lines[1]["event"] == "from the standard library"
    assert {line["service"] for line in lines} == {"test"}


def test_lines_go_to_the_collector_as_well_with_what_they_say_as_attributes() -> None:
    kept = InMemoryLogRecordExporter()
    telemetry = make_telemetry(
        "test",
        None,
        span_processors=[SimpleSpanProcessor(InMemorySpanExporter())],
        log_processors=[SimpleLogRecordProcessor(kept)],
    )
    configure_logs(service="test", level="INFO", json=False, exported=telemetry.logger_provider)
    with telemetry.tracer.start_as_current_span("span") as span:
        structlog.get_logger().warning("dead_lettered", offset=3, api_key="hunter2", fields=["a"])
        logging.getLogger("opentelemetry.exporter").error("the collector is away")
    (record,) = (data.log_record for data in kept.get_finished_logs())
    assert (record.body, record.severity_text) == ("dead_lettered", "WARNING")
    assert record.trace_id == span.get_span_context().trace_id
    told = {"offset": 3, "api_key": "***", "fields": '["a"]', "service": "test"}
    assert dict(record.attributes or {}) == told


def test_a_trace_goes_in_and_out_of_headers() -> None:
    telemetry = make_telemetry("test", None, span_processors=[SimpleSpanProcessor(InMemorySpanExporter())])
    with telemetry.tracer.start_as_current_span("producer") as parent:
        headers = inject()
    with telemetry.tracer.start_as_current_span("consumer", context=extract(headers)) as child:
        assert child.get_span_context().trace_id == parent.get_span_context().trace_id
    assert inject() == {}
