"""The script of the pages in a real browser, on drawn pages whose API is told what to answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import tunewheel_console.pages as pages
from aiohttp import web
from playwright.async_api import Page
from starlette.requests import Request
from tunewheel_console.pages.drawing import draw
from tunewheel_contracts.principal import Principal
from tunewheel_runtime.identity.guard import set_caller
from tunewheel_runtime.identity.roles import Caller, Grant, Role
from tunewheel_testing.browser import becomes, click, until
from tunewheel_testing.waiting import PATIENCE_SECONDS

pytestmark = [pytest.mark.nightly("browsers")]

STATIC = Path(pages.__file__).with_name("static")
NAMES = ("dataset", "then", "querySelector", "publish", "out_of_scope")
"""Properties of an answer that are named as what a form in a browser has itself."""
SHOWN = """document.readyState === 'complete' && document.querySelector('[data-number="{}"]') !== null"""
ANSWERED = {
    "answered": 0,
    "items": 3,
    "next": 1,
    "takes_verdict": True,
    "review_id": "rev-1",
    "outcome": None,
}


class Door:
    """Serves drawn pages, keeps what they send, and answers once ``answers`` is set."""

    def __init__(self) -> None:
        self.records = ["rec-b", "rec-c"]
        self.sent: list[tuple[str, Any, str | None]] = []
        self.answers = asyncio.Event()
        self.answers.set()
        self.closed = asyncio.Event()
        self.hang_up = False
        self.streams: list[web.StreamResponse] = []
        self.app = web.Application()
        self.app.router.add_static("/static", STATIC)
        self.app.router.add_get("/v1/events", self.events)
        self.app.router.add_route("*", "/v1/{rest:.*}", self.take)
        self.app.router.add_get("/projects/desk/{noun}", self.page)

    async def events(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(b":\n\n")
        self.streams.append(stream)
        await self.closed.wait()
        return stream

    async def tell(self) -> None:
        for stream in self.streams:
            await stream.write(b"event: record.ingested\ndata: {}\n\n")

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.sent.append((request.path, await request.json(), request.headers.get("idempotency-key")))
        await self.answers.wait()
        if self.hang_up:
            assert request.transport is not None
            request.transport.close()
        return web.json_response(ANSWERED)

    async def page(self, request: web.Request) -> web.Response:
        scope = {
            "type": "http", "method": "GET", "path": request.path, "raw_path": request.path.encode(),
            "query_string": request.query_string.encode(), "headers": [(b"host", b"x")],
            "path_params": {"project": "desk"},
        }  # fmt: skip
        set_caller(scope, Caller(Principal(name="ann"), (Grant(frozenset(Role), None),)))
        noun = request.match_info["noun"]
        found = getattr(self, noun)(int(request.query.get("item", 1)))
        text = draw(noun, Request(scope), live=noun == "quarantine", **found)
        return web.Response(text=text, content_type="text/html")

    def quarantine(self, _: int) -> dict[str, Any]:
        fixed = dict.fromkeys(("kind", "trust", "origin", "published_at", "output"), "")
        told = {"state": "waiting", "reason": "flood", "evidence": "many", "input": "?"} | fixed
        return {"found": {"items": [told | {"record_id": one} for one in self.records], "next": None}}

    def review_item(self, number: int) -> dict[str, Any]:
        item = {"number": number, "of": 3, "messages": [], "left": "a", "right": "b", "expected": None}
        return {"it": ANSWERED, "item": item | {"answer": None}}

    def label_item(self, number: int) -> dict[str, Any]:
        about = {"required": True, "description": "", "choices": ()}
        fields = [{"name": name, "kind": "text"} | about for name in NAMES]
        fields += [{"name": "count", "kind": "number"} | about, {"name": "sure", "kind": "yes_no"} | about]
        it = {
            "keywords": (), "request_id": "ask-1", "answered": 0, "wanted": 1, "state": "waiting",
            "minutes": 0, "items": [{"state": "open", "number": 1}], "outcome": None, "fields": fields,
            "second_opinion": False, "next": 1, "asked_by": None,
        }  # fmt: skip
        item = {
            "number": number, "of": 1, "state": "open", "messages": [], "model_output": "", "version": "none",
            "others": [], "beside": [], "is_compared": False, "model_values": {}, "given_values": {},
            "previous": None, "following": None,
        }  # fmt: skip
        return {"it": it, "item": item}


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    made = Door()
    runner = web.AppRunner(made.app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/projects/desk"  # type: ignore[attr-defined]
    yield made
    made.closed.set()
    await runner.cleanup()


async def sent(door: Door, count: int) -> list[tuple[str, Any, str | None]]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(door.sent) < count:
            await asyncio.sleep(0.05)
    return door.sent


async def test_a_key_pressed_before_the_next_item_shows_does_not_change_the_answer(door: Any, tab: Page):
    await tab.goto(f"{door.url}/review_item?item=1")
    await becomes(tab, SHOWN.format(1))
    door.answers.clear()
    for key in ("1", "3", "3"):
        await tab.keyboard.press(key)
    await sent(door, 1)
    door.answers.set()
    await becomes(tab, SHOWN.format(2))
    assert [(path[-14:], body["choice"]) for path, body, _ in door.sent] == [("items/1/answer", "left")]
    await tab.keyboard.press("2")
    await becomes(tab, SHOWN.format(3))
    assert door.sent[-1][1]["choice"] == "same"


async def test_an_answer_may_have_properties_that_are_named_as_what_forms_have(door: Any, tab: Page):
    await tab.goto(f"{door.url}/label_item")
    await becomes(tab, "document.querySelector('[data-name=count]') !== null")
    for name in NAMES:
        await tab.fill(f"[data-name={name}]", f"a {name}")
    await tab.fill("[data-name=count]", "12345678901234567890")
    await tab.evaluate("document.querySelector('[data-name=sure][value=false]').click()")
    await click(tab, "Publish")
    await until(tab, "count has more digits")
    await tab.evaluate("document.querySelector('[data-name=count]').value = ''")
    await tab.fill("[data-name=count]", "12")
    await tab.keyboard.press("Escape")
    await click(tab, "Publish")
    (told,) = await sent(door, 1)
    answer = {name: f"a {name}" for name in NAMES} | {"count": 12, "sure": False}
    assert told[1] == {"output": answer, "seen": "none"}


async def test_a_form_stays_its_commands_and_keeps_its_text_when_a_record_comes_before_it(
    door: Any, tab: Page
):
    await tab.goto(f"{door.url}/quarantine")
    form = "document.querySelector('#Release-quarantine-rec-b form')"
    await becomes(tab, f"{form} !== null")
    await tab.evaluate(f"{form}.parentElement.open = true")
    await tab.fill("#Release-quarantine-rec-b textarea", "she is right")
    await tab.evaluate("document.activeElement.blur()")
    door.records.insert(0, "rec-a")
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not door.streams:
            await asyncio.sleep(0.05)
    await door.tell()
    await until(tab, "rec-a")
    script = """JSON.stringify([...document.querySelectorAll('details[open]')].map(
        one => [one.id, one.querySelector('textarea').value, one.querySelector('form').dataset.body]))"""
    ((name, text, body),) = json.loads(await tab.evaluate(script))
    assert (name, text) == ("Release-quarantine-rec-b", "she is right")
    assert json.loads(body)["records"] == ["rec-b"]

    door.hang_up = True
    await tab.evaluate(f"{form}.requestSubmit()")
    await until(tab, "not sent")
    door.hang_up = False
    await tab.evaluate(f"{form}.requestSubmit()")
    await becomes(tab, f"{form}.querySelector('output').textContent === 'sent'")
    names = [key for _, _, key in door.sent]
    assert len(set(names)) == 1, "the same command"
    assert names[0]
    await tab.evaluate(f"{form}.requestSubmit()")
    assert (await sent(door, len(names) + 1))[-1][2] not in (names[0], None), "another command"
