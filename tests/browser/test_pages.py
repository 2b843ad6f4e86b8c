"""Every page in a real browser, on two turns of the help desk: narrow and wide, light and dark."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Browser, Page
from tunewheel_console.pages.addresses import ADDRESSES
from tunewheel_testing.browser import Seen, becomes, opened, until
from tunewheel_testing.console import Console
from tunewheel_testing.crawl import HEADERS, one_of_each, some_pages
from tunewheel_testing.helpdesk import tell

pytestmark = [pytest.mark.nightly("browsers")]

NODES = 1_500
GRAVE = ("serious", "critical")
PROJECT = "/projects/helpdesk"


@pytest.fixture(scope="module")
def helpdesk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    made = Console(tmp_path_factory.mktemp("helpdesk"))
    asyncio.run(tell(made))
    with made.serving():
        yield made


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with opened(chromium) as found:
        yield found


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1_400])
async def test_every_page_is_whole(helpdesk: Console, browser: Browser, width: int, theme: str):
    context = await browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=theme, extra_http_headers=HEADERS
    )
    page = await context.new_page()
    seen = Seen(page)
    pages = one_of_each(await some_pages(helpdesk.url))
    faults = [f"no link leads to {one.path}" for one in ADDRESSES if one.path not in pages]
    for path in [*pages.values(), f"{PROJECT}/runs/nothing"]:
        faults += [f"{path}: {fault}" for fault in await _faults(page, seen, helpdesk.url + path)]
    assert not faults, "\n".join(faults)


async def test_the_login_page_is_whole(helpdesk: Console, browser: Browser):
    page = await browser.new_page(viewport={"width": 400, "height": 800})
    faults = await _faults(page, Seen(page), f"{helpdesk.url}/projects", expected=401)
    assert not faults, "\n".join(faults)
    await until(page, "API key or token")


async def _faults(page: Page, seen: Seen, url: str, expected: int = 200) -> list[str]:
    """Return what is wrong with the page at ``url``."""
    expected = 404 if url.endswith("/nothing") else expected
    seen.forget()
    answer = await page.goto(url)
    await becomes(page, "document.readyState === 'complete'")
    status = answer.status if answer else None
    counted = await page.evaluate("document.querySelectorAll('*').length")
    wide, room = await page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    told = await Axe().run(page)
    origin = "{0.scheme}://{0.netloc}".format(urlsplit(url))
    found = [f"status {status}"] if status != expected else []
    found += [f"asked {other}" for other in seen.elsewhere(origin)]
    found += [f"complains: {error}" for error in seen.errors if f"status of {expected}" not in error]
    found += [f"{counted} nodes"] if counted > NODES else []
    found += [f"{wide} pixels of {room}"] if wide > room else []
    found += [
        f"{one['id']}: {one['nodes'][0]['html'][:120]} {one['nodes'][0]['failureSummary']}"
        for one in told.response["violations"]
        if one["impact"] in GRAVE
    ]
    return found


async def test_an_event_leaves_focus_scrolling_and_typed_text(helpdesk: Console, browser: Browser):
    page = await browser.new_page(extra_http_headers=HEADERS, viewport={"width": 1_400, "height": 500})
    paths = await some_pages(helpdesk.url)
    run = next(path for path in paths if path.startswith("/projects/lockers/runs/"))
    await page.goto(f"{helpdesk.url}/projects/lockers")
    form = page.locator("details.order").last
    await form.locator("summary").click()
    await form.locator("textarea").fill("promises ref")
    before = await page.evaluate("scrollY")
    assert before > 0
    async with httpx.AsyncClient(base_url=helpdesk.url, headers=HEADERS) as client:
        answer = await client.post(f"/v1{run}/pause", json={})
    assert answer.status_code < 300, answer.text
    await until(page, "paused")
    await page.keyboard.type("unds")
    assert await form.locator("textarea").input_value() == "promises refunds"
    assert await page.evaluate("scrollY") == before
