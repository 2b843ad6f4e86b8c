"""A console that reads a real broker, and a browser to open it in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser, Page
from tunewheel_testing.browser import chromium_here, opened, tab_of

from ..integration.bus import Bus
from .console_process import Console


@pytest.fixture(scope="session")
def chromium() -> str:
    found = chromium_here()
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    return found


@pytest.fixture(scope="module")
def console(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Console]:
    """Run a console process that asks who calls."""
    running = Console(kafka, tmp_path_factory.mktemp("console"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
async def browser(chromium: str) -> AsyncIterator[Browser]:
    async with opened(chromium) as found:
        yield found


@pytest.fixture
async def tab(browser: Browser) -> Page:
    return await tab_of(browser)


@pytest.fixture
async def bus(kafka: str) -> AsyncIterator[Bus]:
    async with Bus(kafka) as found:
        yield found
