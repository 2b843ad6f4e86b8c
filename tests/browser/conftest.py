"""A console that reads a real broker, and a browser to open it in."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from ..integration.bus import Bus
from .console_process import Console
from .devtools import Tab, opened_tab

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
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
async def tab(chromium: str, tmp_path: Path) -> AsyncIterator[Tab]:
    async with opened_tab(chromium, tmp_path / "profile") as opened:
        yield opened


@pytest.fixture
async def bus(kafka: str) -> AsyncIterator[Bus]:
    async with Bus(kafka) as opened:
        yield opened
