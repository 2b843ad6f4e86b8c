"""What is wrong with a page: its status, scripts, size, width, and what axe finds."""

from __future__ import annotations

from urllib.parse import urlsplit

from axe_playwright_python.async_playwright import Axe
from playwright.async_api import Page
from tunewheel_testing.browser import Seen, becomes

NODES = 1_500
GRAVE = ("serious", "critical")


async def faults_of(page: Page, seen: Seen, url: str, expected: int = 200) -> list[str]:
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
