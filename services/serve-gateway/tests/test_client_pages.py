"""The Python of README.md and client/README.md runs, against a console, an ingest and a gateway."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from tunewheel_console.completions import Completions
from tunewheel_console.control.events import Feed
from tunewheel_console.control.identity import add_identity
from tunewheel_console.control.neighbours import Neighbour
from tunewheel_console.control.routes import Sources, add_control, make_api
from tunewheel_console.letters import Letters
from tunewheel_console.settings import Settings
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.api.services import GroupLag
from tunewheel_ingest.door import app as ingest
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.identity.roles import ANYBODY, Caller
from tunewheel_runtime.settings import HttpSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.desk import Desk
from tunewheel_testing.log import MemoryLog
from tunewheel_testing.served import served, serving
from tunewheel_testing.waiting import until

ROOT = Path(__file__).resolve().parents[3]
PAGES = ("README.md", "client/README.md")
FOLLOWS = "events.follow"
OPEN = Access(HttpSettings(identity="open"), warn=print)


def snippets(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.DOTALL)


class Intake(MemoryLog):
    wrap = MemoryLog.new
    publish = MemoryLog.publish_many  # type: ignore[assignment]

    def admit(self, project: str) -> None:
        """Take from every project as much as comes."""

    async def check_project(self, project: str) -> None:
        assert project == "helpdesk"


@pytest.fixture
async def wheel(world: Any, feed: Feed, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Intake]:
    """A wheel with the project helpdesk, whose only turn has ended; it is named by the environment."""
    world.declare("helpdesk")
    desk, state, log = Desk("helpdesk"), ConsoleState(), Intake()
    asked = desk.say("dataset.requested", reason="count", request="r", records_upto={"0": 1})
    sha = "0" * 64
    rejected = desk.say("dataset.rejected", asked, spec_sha256=sha, rows_sha256=sha, reasons=("too few",))
    for event in (desk.declared(), asked, rejected):
        state.apply(event)
    limits = {"max_body_bytes": 1 << 20, "publish_batch": 10, "max_document_bytes": 1 << 20}
    door = ingest.make_api(log, ObjectStore("memory://"), **limits)
    guard(door.routes, OPEN)
    with served(door) as ingest_url:
        told = {"public_gateway_url": world.url, "public_ingest_url": ingest_url}
        async with serving(console(state, feed, Settings.model_validate(told))) as url:
            monkeypatch.setenv("TUNEWHEEL_URL", url)
            monkeypatch.setenv("TUNEWHEEL_API_KEY", "k")
            yield log


@pytest.fixture
def feed() -> Feed:
    return Feed()


def console(state: ConsoleState, feed: Feed, settings: Settings) -> FastAPI:
    async def no_lags() -> list[GroupLag]:
        return []

    async def anybody(_: Request) -> Caller:
        return ANYBODY

    web = make_api(state)
    away = Neighbour("registry", None, setting="TUNEWHEEL_REGISTRY_URL")
    store, completions = ObjectStore("memory://"), Completions(Path())
    sources = Sources(store, feed, Letters(), no_lags, away, away, completions)
    add_control(web, state, sources, anybody)
    add_identity(web, settings)
    guard(web.routes, OPEN)
    return web


async def run(snippet: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-W", "error", "-c", snippet,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    return said


@pytest.mark.parametrize("page", PAGES)
async def test_the_python_of_a_page_runs(page: str, wheel: Intake, world: Any):
    found = [snippet for snippet in snippets(page) if FOLLOWS not in snippet]
    assert found
    for snippet in found:
        await run(snippet)
    assert [event.data.type for event in wheel.events] == ["ticket.published"]
    assert len(world.broker.of("feedback.received")) == 1


async def test_the_python_that_follows_events_is_told_them(wheel: Intake, feed: Feed):
    (snippet,) = [snippet for page in PAGES for snippet in snippets(page) if FOLLOWS in snippet]
    running = asyncio.create_task(run(snippet))
    await until(lambda: feed._readers)
    feed.add(Desk("helpdesk").declared())
    assert "project.declared helpdesk" in await running
