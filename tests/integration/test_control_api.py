"""The control API of a console process on a real broker: who reads the log, and events as they come."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import pytest
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.training import TrainProgressed

from ..browser.console_process import Console
from .bus import PATIENCE_SECONDS, Bus

pytestmark = pytest.mark.integration


def step(project: str, number: int) -> TrainProgressed:
    return TrainProgressed(
        project=project, run_id="run-1", step=number, total_steps=9, epoch=0.1, loss=1.0, learning_rate=1e-3,
        tokens_per_second=1.0, eta_seconds=1.0,
    )  # fmt: skip


async def followed(client: httpx.AsyncClient, last: str | None, opened: asyncio.Event) -> dict[str, str]:
    """Return the first message of the stream; ``opened`` is set once the stream is open."""
    headers = {} if last is None else {"last-event-id": last}
    async with client.stream("GET", "/events", headers=headers) as answer:
        assert answer.status_code == 200
        message: dict[str, str] = {}
        async for line in answer.aiter_lines():
            if line.startswith(":"):
                opened.set()
            elif line:
                name, _, value = line.partition(": ")
                message[name] = value
            elif message:
                return message
    pytest.fail("the stream ended")


async def test_a_program_follows_events_and_goes_on_after_an_interruption_until_the_process_stops(
    kafka: str, tmp_path: Path, project: str
):
    console = Console(kafka, tmp_path)
    key = console.let_in(project, "viewer")
    console.start()
    first, second = (new_event(step(project, n), source="/test") for n in (1, 2))
    headers = {"authorization": f"Bearer {key}"}
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        Bus(kafka) as bus,
        httpx.AsyncClient(base_url=f"{console.url}/v1", headers=headers, timeout=None) as client,
    ):
        groups = (await client.get("/services")).json()
        assert "ingest" in groups["silent"]
        assert {one["service"] for one in groups["groups"]} >= {"train", "eval"}
        opened = asyncio.Event()
        listening = asyncio.create_task(followed(client, None, opened))
        await opened.wait()
        await bus.publish(first)
        message = await listening
        assert (message["id"], message["event"]) == (first.id, "train.progressed")
        assert json.loads(message["data"])["data"]["step"] == 1
        await bus.publish(second)
        assert (await followed(client, first.id, opened))["id"] == second.id
        listening = asyncio.create_task(followed(client, None, again := asyncio.Event()))
        await again.wait()
        await asyncio.to_thread(console.stop)  # an open stream holds no process
        with pytest.raises((httpx.TransportError, pytest.fail.Exception)):
            await listening
