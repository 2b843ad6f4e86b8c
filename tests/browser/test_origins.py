"""A page of another website calls a service from a real browser, with a key."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from tunewheel_runtime.admission import Admission
from tunewheel_runtime.doors import Door
from tunewheel_runtime.settings import HttpSettings

pytestmark = [pytest.mark.nightly("browsers")]

CALL = """async url => {
  try {
    const body = JSON.stringify({question: "why"});
    const headers = {"content-type": "application/json", authorization: "Bearer tw-key"};
    return (await (await fetch(url, {method: "POST", headers, body})).json()).key;
  } catch (error) { return String(error); }
}"""


async def asked(request: Request) -> Response:
    return JSONResponse({"key": request.headers.get("authorization")})


async def page(_: Request) -> Response:
    return HTMLResponse("<!doctype html><title>another website</title>")


@contextlib.asynccontextmanager
async def serving(**settings: str) -> AsyncIterator[str]:
    routes = [Route("/ask", asked, methods=["POST"]), Route("/", page)]
    app = Admission(Starlette(routes=routes), HttpSettings.model_validate(settings))
    door, closing = Door(app, host="127.0.0.1", port=0, patience=30, certificate=None), asyncio.Event()
    task = asyncio.create_task(door.serve(closing))
    try:
        yield f"http://127.0.0.1:{door.port}"
    finally:
        closing.set()
        await task


@pytest.mark.parametrize("is_allowed", [True, False])
async def test_a_page_of_an_allowed_website_reads_the_answer_and_no_other_does(
    tab: Page, is_allowed: bool
) -> None:
    async with serving() as website, serving(http_allowed_origins=website if is_allowed else "") as service:
        await tab.goto(website)
        told = await tab.evaluate(CALL, f"{service}/ask")
        assert told == "Bearer tw-key" if is_allowed else told.startswith("TypeError")
