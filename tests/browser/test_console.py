"""The console in a real browser: Chromium, headless, on a console process that reads a real broker."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import httpx
import pytest
from tunewheel_cli.kafka.ports import free_port
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.evaluation import ReviewRequested
from tunewheel_contracts.events.lifecycle import ModelPromoted, Stage
from tunewheel_contracts.events.production import DriftDetected, DriftExample, DriftWindow
from tunewheel_contracts.events.training import TrainProgressed

from ..integration.bus import PATIENCE_SECONDS, Bus
from ..integration.specs import declared
from ..integration.verdicts import passed

pytestmark = pytest.mark.integration

MARKUP = '<img src="/nowhere" onerror="alert(1)"> customer wrote'
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="session")
def chromium() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium is installed: apt-get install chromium")
    return found


@pytest.fixture
def console(kafka: str, tmp_path: Path) -> Iterator[str]:
    """Run a console process and return its URL."""
    port, health_port = free_port(), free_port()
    environment = os.environ | {
        "TUNEWHEEL_BOOTSTRAP_SERVERS": kafka,
        "TUNEWHEEL_HTTP_PORT": str(port),
        "TUNEWHEEL_HEALTH_PORT": str(health_port),
        "TUNEWHEEL_STORE_URL": (tmp_path / "store").as_uri(),
        "TUNEWHEEL_REFRESH_SECONDS": "0.1",
    }
    log = (tmp_path / "console.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "tunewheel_console.main"], env=environment, stdout=log, stderr=log
    )
    try:
        until_ready(health_port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 0, (tmp_path / "console.log").read_text()
        log.close()


def until_ready(health_port: int) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"http://127.0.0.1:{health_port}/health/ready").status_code == 200:
                return
        time.sleep(0.05)
    pytest.fail("the console did not get ready")


async def dom(chromium: str, url: str, profile: Path) -> str:
    """Return the page as the browser has it once its scripts have run."""
    process = await asyncio.create_subprocess_exec(
        chromium,
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        f"--user-data-dir={profile}",
        "--virtual-time-budget=8000",
        "--dump-dom",
        url,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        output, _ = await process.communicate()
    return output.decode("utf-8", "replace")


@pytest.fixture
async def bus(kafka: str) -> AsyncIterator[Bus]:
    async with Bus(kafka) as opened:
        yield opened


async def publish_turn(bus: Bus, project: str) -> None:
    progress = TrainProgressed(
        project=project, run_id="run-1", step=3, total_steps=9, epoch=0.1, loss=1.25, learning_rate=1e-3,
        tokens_per_second=100.0, eta_seconds=5.0,
    )  # fmt: skip
    verdict = passed(project, 1)
    review = ReviewRequested.model_validate(verdict.data.model_dump())
    model_id = verdict.data.adapter.model_id
    promotion = ModelPromoted(
        project=project, model_id=model_id, from_stage=Stage.EVALUATED, to_stage=Stage.PRODUCTION,
        cause=verdict.id, reason="held up",
    )  # fmt: skip
    await bus.publish(
        declared(project),
        *(new_event(data, source="/test") for data in (progress, review, promotion, drift(project))),
    )


def drift(project: str) -> DriftDetected:
    """Return a drift whose example is what a customer wrote: markup."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    window = DriftWindow(
        first_completion_id="c1", last_completion_id="c9", completions=9, started_at=at, ended_at=at
    )
    return DriftDetected(
        project=project, detector="input", statistic_name="ks", statistic=0.4, p_value=0.001, threshold=0.01,
        dataset_id="ds-1", model_id="m-1", window=window,
        examples=(DriftExample(completion_id="c3", excerpt=MARKUP, score=0.9),),
    )  # fmt: skip


async def test_the_page_shows_a_project_with_no_other_host(
    chromium: str, console: str, bus: Bus, project: str, tmp_path: Path
):
    await publish_turn(bus, project)
    async with asyncio.timeout(PATIENCE_SECONDS):
        attempt, page = 0, ""
        while not all(text in page for text in (project, "waits for a person", "run-1", "customer wrote")):
            page = await dom(chromium, console, tmp_path / f"profile-{attempt}")
            attempt += 1
    assert "Approve" in page
    assert MARKUP not in page
    assert "&lt;img src=" in page
    foreign = [part for part in page.split('"') if part.startswith(("http://", "https://", "//"))]
    assert not [url for url in foreign if not url.startswith((console, "http://www.w3.org/"))]


async def test_only_its_own_page_opens_the_pages_connection(console: str):
    """The page acts over a websocket, or over posts of ``text/plain`` where none gets through."""
    socket = f"{console}/_nicegui_ws/socket.io/?EIO=4&transport="
    ours, foreign = {"origin": console}, {"origin": "https://evil.example"}
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{socket}websocket", headers=ours) as opened:
            assert (await opened.receive_str()).startswith('0{"sid"')
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await session.ws_connect(f"{socket}websocket", headers=foreign)
        assert refused.value.status == 403
        async with session.get(f"{socket}polling", headers=ours) as answer:
            sid = json.loads((await answer.text()).removeprefix("0"))["sid"]
        async with session.post(f"{socket}polling&sid={sid}", data="40", headers=ours) as answer:
            assert (answer.status, answer.request_info.headers["content-type"][:10]) == (200, "text/plain")
        async with session.post(f"{socket}polling&sid={sid}", data="40", headers=foreign) as answer:
            assert answer.status == 403
        async with session.post(f"{console}/v1/projects/p/runs/r/cancel", headers=foreign) as answer:
            assert answer.status == 403
