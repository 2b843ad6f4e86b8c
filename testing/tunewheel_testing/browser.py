"""A headless Chromium of the system, driven by Playwright."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from playwright.async_api import Browser, Error, Page, Request, async_playwright

from tunewheel_testing.waiting import PATIENCE_SECONDS

LOOK_SECONDS = 0.05
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium_here() -> str | None:
    """Return the path of the system's Chromium; None: there is none. Playwright brings no browser here."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


@contextlib.asynccontextmanager
async def opened(chromium: str) -> AsyncGenerator[Browser]:
    """Start the browser, and end it."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()


async def tab_of(browser: Browser, **options: Any) -> Page:
    """Open a tab whose steps have as long as every other wait; Playwright would give each half a minute."""
    page = await browser.new_page(**options)
    page.set_default_timeout(1000 * PATIENCE_SECONDS)
    return page


class Seen:
    """What a page asked for and was answered since ``forget``, and what its scripts complained about."""

    def __init__(self, page: Page) -> None:
        self.requested: list[str] = []
        """The URLs that the browser asked for."""
        self.finished: list[Request] = []
        self.errors: list[str] = []
        page.on("request", lambda request: self.requested.append(request.url))
        page.on("requestfinished", lambda request: self.finished.append(request))
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)

    def forget(self) -> None:
        for kept in (self.requested, self.finished, self.errors):
            kept.clear()

    def elsewhere(self, url: str) -> list[str]:
        """Return what was asked of other hosts than that of ``url``."""
        return [one for one in self.requested if not one.startswith((url, "data:", "about:"))]

    async def bodies(self) -> dict[str, str]:
        """Return by URL what the finished requests were answered."""
        found: dict[str, str] = {}
        for request in self.finished:
            with contextlib.suppress(Error):  # a redirect has no body, and the browser may have dropped one
                answer = await request.response()
                found[request.url] = await answer.text() if answer else ""
        return found


async def until(page: Page, *texts: str) -> str:
    """Wait until the loaded page shows all of ``texts``, in upper or lower case, and return all that it
    shows."""
    shown = ""

    async def look() -> bool:
        nonlocal shown
        shown = await value(page, "document.readyState === 'complete' ? document.body.innerText : ''") or ""
        return all(text.lower() in shown.lower() for text in texts)

    try:
        await _poll(look)
    except TimeoutError:
        raise AssertionError(f"the page does not show {texts}, but: {shown}") from None
    return shown


async def becomes(page: Page, expression: str) -> None:
    """Wait until a script says true, such as after the page has loaded itself anew."""
    await _poll(lambda: value(page, expression))


async def value(page: Page, expression: str) -> Any:
    """Return the value of a script; None while another page is being loaded."""
    try:
        return await page.evaluate(expression)
    except Error as error:
        if "context was destroyed" in error.message or "navigation" in error.message:
            return None
        raise


async def click(page: Page, text: str) -> None:
    """Click the button, or what opens a form, that says ``text``."""
    says = re.compile(rf"^\s*{re.escape(text)}\s*$", re.IGNORECASE)
    await page.locator("button, summary").filter(has_text=says).first.click()


async def _poll(look: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await look():  # noqa: ASYNC110 - the page tells nobody when it has changed
            await asyncio.sleep(LOOK_SECONDS)
