"""Every page in a real browser, on two turns of the help desk: narrow and wide, light and dark."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httpx
import pytest
from playwright.async_api import Browser
from tunewheel_console.pages.addresses import ADDRESSES
from tunewheel_testing.browser import Seen, tab_of, until
from tunewheel_testing.console import Console
from tunewheel_testing.crawl import HEADERS, one_of_each, some_pages
from tunewheel_testing.helpdesk import tell
from tunewheel_testing.waiting import PATIENCE_SECONDS

from .wholeness import faults_of

pytestmark = [pytest.mark.nightly("browsers")]

PROJECT = "/projects/helpdesk"


@pytest.fixture(scope="module")
def helpdesk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    made = Console(tmp_path_factory.mktemp("helpdesk"))
    asyncio.run(tell(made))
    with made.serving():
        yield made


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1_400])
async def test_every_page_is_whole(helpdesk: Console, browser: Browser, width: int, theme: str):
    page = await tab_of(
        browser,
        viewport={"width": width, "height": 900},
        color_scheme=theme,
        extra_http_headers=HEADERS,
    )
    seen = Seen(page)
    pages = one_of_each(await some_pages(helpdesk.url))
    faults = [f"no link leads to {one.path}" for one in ADDRESSES if one.path not in pages]
    for path in [*pages.values(), f"{PROJECT}/runs/nothing"]:
        faults += [f"{path}: {fault}" for fault in await faults_of(page, seen, helpdesk.url + path)]
    assert not faults, "\n".join(faults)


async def test_the_login_page_is_whole(helpdesk: Console, browser: Browser):
    page = await tab_of(browser, viewport={"width": 400, "height": 800})
    faults = await faults_of(page, Seen(page), f"{helpdesk.url}/projects", expected=401)
    assert not faults, "\n".join(faults)
    await until(page, "API key or token")


async def test_an_event_leaves_focus_scrolling_and_typed_text(helpdesk: Console, browser: Browser):
    page = await tab_of(browser, extra_http_headers=HEADERS, viewport={"width": 1_400, "height": 500})
    paths = await some_pages(helpdesk.url)
    run = next(path for path in paths if path.startswith("/projects/lockers/runs/"))
    await page.goto(f"{helpdesk.url}/projects/lockers")
    form = page.locator("details.order").filter(has=page.locator("textarea")).last
    await form.locator("summary").click()
    await form.locator("textarea").fill("promises ref")
    before = await page.evaluate("scrollY")
    assert before > 0
    async with httpx.AsyncClient(base_url=helpdesk.url, headers=HEADERS, timeout=PATIENCE_SECONDS) as client:
        answer = await client.post(f"/v1{run}/pause", json={})
    assert answer.status_code < 300, answer.text
    await until(page, "paused")
    await page.keyboard.type("unds")
    assert await form.locator("textarea").input_value() == "promises refunds"
    assert await page.evaluate("scrollY") == before
