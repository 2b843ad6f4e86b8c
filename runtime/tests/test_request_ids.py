"""The name of a request: on every answer, and on every line of the log about it."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from tunewheel_runtime.admission import Admission
from tunewheel_runtime.request_ids import LONGEST_PATH, HttpSpans, RequestIds, outgoing
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.telemetry import Telemetry, inject, make_telemetry


async def tell(_: Request) -> PlainTextResponse:
    return PlainTextResponse(str(structlog.contextvars.get_contextvars().get("request_id")))


def client() -> TestClient:
    door = [Middleware(RequestIds), Middleware(Admission, HttpSettings(identity="open"))]
    app = Starlette(routes=[Route("/tell", tell, methods=["GET", "POST"])], middleware=door)
    return TestClient(app, base_url="http://localhost")


def test_each_answer_and_its_log_lines_have_a_new_one():
    answers = [client().get("/tell") for _ in range(2)]
    ids = [answer.headers["x-request-id"] for answer in answers]
    assert len(set(ids)) == 2
    assert [answer.text for answer in answers] == ids


@pytest.mark.parametrize("sent", ["7", "order-7:2026/11", "a" * 128])
def test_the_clients_own_counts(sent: str):
    answer = client().get("/tell", headers={"x-request-id": sent})
    assert answer.headers["x-request-id"] == answer.text == sent


@pytest.mark.parametrize("sent", ["", " ", "a b", "a" * 129, "a\x1b[31m", "é", '{"a":1}'])
def test_an_invalid_request_id_is_replaced(sent: Any):
    answer = client().get("/tell", headers={"x-request-id": sent.encode()})
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/tell", 415), ("GET", "/none", 404), ("PUT", "/tell", 405)]
)
def test_a_refusal_has_one_too(method: str, path: str, status: int):
    answer = client().request(method, path, content=b"x" if method == "POST" else None)
    assert answer.status_code == status
    assert answer.headers["x-request-id"]


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


def test_another_server_is_told_the_id_with_an_end_of_its_own() -> None:
    async def told(_: Request) -> Response:
        return JSONResponse([outgoing(), outgoing()])

    app = Starlette(routes=[Route("/", told)], middleware=[Middleware(RequestIds)])
    first, second = TestClient(app).get("/", headers={"x-request-id": "mine-1"}).json()
    assert first["x-request-id"].startswith("mine-1-")
    assert first["x-request-id"] != second["x-request-id"]
    assert "x-request-id" not in outgoing()
