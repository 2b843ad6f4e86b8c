from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.testclient import TestClient
from tunewheel_runtime.http_spans import LONGEST_PATH, HttpSpans
from tunewheel_runtime.telemetry import Telemetry, inject, make_telemetry

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def telemetry(spans: InMemorySpanExporter) -> Telemetry:
    return make_telemetry("test", None, span_processors=[SimpleSpanProcessor(spans)])


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers 503 at /away, fails at /broken, and else tells what a record published now would carry."""
    if scope["path"] == "/broken":
        raise RuntimeError("a text of the request's")
    status = 503 if scope["path"] == "/away" else 200
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": inject().get("traceparent", b"")})


def test_events_that_follow_from_a_request_are_in_its_callers_trace(
    spans: InMemorySpanExporter, telemetry: Telemetry
):
    client = TestClient(HttpSpans(echo, telemetry.tracer))
    carried = client.get("/v1/x?q=secret", headers={"traceparent": f"00-{TRACE}-{PARENT}-01"}).text
    (span,) = spans.get_finished_spans()
    assert carried.split("-")[1:3] == [TRACE, format(span.context.span_id, "016x")]
    assert span.parent is not None
    assert format(span.parent.span_id, "016x") == PARENT
    assert (span.name, span.kind) == ("GET", SpanKind.SERVER)
    told = {"http.request.method": "GET", "url.path": "/v1/x", "http.response.status_code": 200}
    assert dict(span.attributes or {}) == told


@pytest.mark.parametrize("path", ["/away", "/broken"])
def test_a_request_that_fails_is_marked_and_nothing_of_it_is_told(
    spans: InMemorySpanExporter, telemetry: Telemetry, path: str
):
    client = TestClient(HttpSpans(echo, telemetry.tracer), raise_server_exceptions=False)
    client.get(path, headers={"traceparent": "nonsense"})
    (span,) = spans.get_finished_spans()
    assert (span.parent, span.status.status_code) == (None, StatusCode.ERROR)
    assert (span.status.description, span.events) == (None, ())


def test_a_path_without_end_is_cut(spans: InMemorySpanExporter, telemetry: Telemetry):
    TestClient(HttpSpans(echo, telemetry.tracer)).get("/" + "x" * 1_000)
    (span,) = spans.get_finished_spans()
    assert len(str((span.attributes or {})["url.path"])) == LONGEST_PATH


def test_without_an_exporter_nothing_is_traced():
    assert not make_telemetry("test", None).traces
