"""Every refusal has one shape, and names each wrong field."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI
from pydantic import BaseModel, Field
from tunewheel_contracts.errors import InvalidEvent, InvalidSpec, TransientError
from tunewheel_runtime.refusals import Refused, answer_errors


class Order(BaseModel):
    reason: Annotated[str, Field(min_length=1)]
    percent: Annotated[int, Field(le=100)] = 0


async def reply(error: Exception | None = None, *, json: Any = None, method: str = "POST") -> httpx.Response:
    web = FastAPI()
    answer_errors(web)

    @web.post("/orders/{number}")
    async def order(number: int, body: Order) -> None:
        if error is not None:
            raise error

    transport = httpx.ASGITransport(web)
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as http:
        return await http.request(method, "/orders/1", json=json or {"reason": "r"})


@pytest.mark.parametrize(
    ("error", "status", "param", "code"),
    [
        (Refused(HTTPStatus.NOT_FOUND, "run_id", "none"), 404, "run_id", "not_found"),
        (Refused(HTTPStatus.CONFLICT, None, "open"), 409, None, "conflict"),
        (InvalidSpec(field="task", reason="r"), 422, "task", "invalid"),
        (InvalidEvent(field="(body)", reason="r"), 413, "(body)", "too_large"),
        (TransientError("the broker is away"), 503, None, "away"),
    ],
)
async def test_a_refusal_tells_its_field_and_its_reason_for_programs(
    error: Exception, status: int, param: str | None, code: str
):
    told = await reply(error)
    body = told.json()["error"]
    assert (told.status_code, body["param"], body["code"]) == (status, param, code)
    assert body["type"] == ("server_error" if status == 503 else "invalid_request_error")
    assert body["message"] == str(error).replace("(body) r", "(body): r")
    assert ("retry-after" in told.headers) == (status == 503)


async def test_all_wrong_fields_of_a_body_are_told():
    told = (await reply(json={"reason": "", "percent": 101})).json()["error"]
    assert (told["param"], [fault["param"] for fault in told["faults"]]) == ("reason", ["reason", "percent"])
    assert told["message"].endswith("(and 1 more)")
    single = (await reply(json={"percent": 1})).json()["error"]
    assert (single["param"], "faults" in single) == ("reason", False)


async def test_another_method_is_refused_in_the_same_shape():
    told = await reply(method="PUT")
    assert (told.status_code, told.json()["error"]["code"]) == (405, "method_not_allowed")
    assert told.headers["allow"] == "POST"


async def test_of_very_many_faults_the_first_are_listed_and_all_are_counted():
    error = (await reply(InvalidSpec.of([(f"f{n}", "is wrong") for n in range(5_000)]))).json()["error"]
    assert (len(error["faults"]), error["param"]) == (1_000, "f0")
    assert "and 4999 more" in error["message"]
