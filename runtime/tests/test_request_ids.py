"""The name of a request: on every answer, and on every line of the log about it."""

from __future__ import annotations

from typing import Any

import pytest
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from tunewheel_runtime.admission import Admission
from tunewheel_runtime.request_ids import RequestIds
from tunewheel_runtime.settings import HttpSettings


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
