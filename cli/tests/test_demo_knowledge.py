"""An SOP that changes while the demo watches: the same question before and after."""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from rich.console import Console
from tunewheel_cli.client import Endpoint
from tunewheel_cli.demo import knowledge
from tunewheel_cli.demo.example import Change, Example
from tunewheel_cli.demo.gateway import GatewayClient
from tunewheel_cli.demo.knowledge import change_an_sop, show
from tunewheel_cli.demo.screen import Screen
from tunewheel_cli.feed import EventFeed
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.service import Position

ROOT = Path(__file__).resolve().parents[2]
HELPDESK = Example.at(ROOT / "examples" / "helpdesk")
VERSIONED = ROOT / "contracts" / "examples" / "index.versioned" / "valid" / "first.json"
CHANGE = Change("How long are things kept?", "lockers.md", "Left behind", "30 days", "45 days")


@dataclass
class Desk:
    """A gateway that cites what it is told to, and a feed that hears of index versions."""

    version: str = "rec-1"
    heading: str = "Lockers > Left behind"
    days: int = 30
    late: int = 0
    """Answers that still cite the version before."""
    asked: list[dict[str, Any]] = field(default_factory=list)
    feed: EventFeed = field(default_factory=lambda: EventFeed(KafkaSettings()))

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append(await request.json())
        version, days = ("rec-1", 30) if self.late > 0 else (self.version, self.days)
        self.late -= 1
        source = {"document": "lockers.md", "heading": self.heading, "version": version}
        other = {"document": "returns.md", "heading": "", "version": "rec-9"}
        message = {"role": "assistant", "content": json.dumps({"reply": f"Kept for {days} days [/b]."})}
        headers = {"x-tunewheel-sources": json.dumps([other, source])}
        return web.json_response({"id": "c-1", "choices": [{"message": message}]}, headers=headers)

    def version_index(self, number: int, project: str = "desk") -> None:
        data = json.loads(VERSIONED.read_text()) | {"project": project, "index_id": f"ix-{number}"}
        event = new_event(IndexVersioned.model_validate(data), source="/test")
        self.feed._take(event, Position("index.versioned", 0, number))

    async def change(self) -> None:
        """What publishing the SOP leads to, the model's answer aside."""
        self.version = "rec-2"
        self.version_index(2)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[GatewayClient]:
        server = web.Application()
        server.router.add_post("/v1/chat/completions", self.answer)
        runner = web.AppRunner(server)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            async with GatewayClient(Endpoint("gateway", url)) as gateway:
                yield gateway
        finally:
            await runner.cleanup()


async def test_the_second_answer_is_the_first_that_cites_the_changed_section() -> None:
    desk = Desk()
    desk.version_index(1)

    async def publish() -> None:
        desk.days, desk.late = 45, 2
        await desk.change()

    async with desk.open() as gateway:
        found = await change_an_sop(CHANGE, project="desk", feed=desk.feed, gateway=gateway, publish=publish)
    assert "30 days" in found.before.text
    assert "45 days" in found.after.text
    assert (CHANGE.cited_by(found.before), CHANGE.cited_by(found.after)) == ("rec-1", "rec-2")
    assert len(desk.asked) == 4, "the gateway answered twice by the index version before"
    assert {body["retrieval"] for body in desk.asked} == {"on"}
    assert {body["model"] for body in desk.asked} == {"desk"}
    assert 0 <= found.index_seconds <= found.answer_seconds


@pytest.mark.parametrize("days", [30, 45])
async def test_what_the_model_did_not_repeat_is_said(days: int) -> None:
    desk = Desk()
    desk.version_index(1)

    async def publish() -> None:
        desk.days = days
        await desk.change()

    async with desk.open() as gateway:
        found = await change_an_sop(CHANGE, project="desk", feed=desk.feed, gateway=gateway, publish=publish)
    screen = Screen()
    screen.console = Console(file=(shown := io.StringIO()), width=200)
    show(found, CHANGE, screen)
    told = shown.getvalue()
    assert "before cites lockers.md, Left behind (rec-1), which says 30 days; the model repeats it" in told
    repeated = "repeats it" if days == 45 else "does not repeat it"
    assert f"after  cites lockers.md, Left behind (rec-2), which says 45 days; the model {repeated}" in told
    assert "[/b]" in told, "an answer is no markup"


@pytest.mark.parametrize(
    ("heading", "words"),
    [
        ("Lockers > Booking", r"cites lockers\.md, Left behind; the last one cites .*Booking"),
        ("Lockers > Left behind", r"waited 0 s for index\.versioned"),
    ],
    ids=["another section", "no new version"],
)
async def test_the_demo_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch, heading: str, words: str
) -> None:
    monkeypatch.setattr(knowledge, "PATIENCE_SECONDS", 0.0)
    desk = Desk(heading=heading)
    desk.version_index(1)

    async def publish() -> None:
        desk.version_index(2, project="another")

    async with desk.open() as gateway:
        with pytest.raises(TimeoutError, match=words):
            await change_an_sop(CHANGE, project="desk", feed=desk.feed, gateway=gateway, publish=publish)


def test_the_example_changes_what_its_question_asks_for_and_nothing_else() -> None:
    change = HELPDESK.change()
    assert change is not None
    (changed,) = HELPDESK.changed_sops.iterdir()
    assert changed.name == change.document
    before, after = (HELPDESK.sops / changed.name).read_text(), changed.read_text()
    assert before.replace(change.before, change.after) == after != before
    section = after.partition(f"## {change.heading}\n")[2].partition("\n## ")[0]
    assert change.after in section
    spec = HELPDESK.spec
    assert spec.retrieval is not None
    assert spec.retrieval.default == "off", "the demo's training, evaluation and rollout are without passages"
