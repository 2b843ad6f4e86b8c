"""Tunewheel's own Python client reads and commands over the real routes."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_client import AsyncClient, Away, Client, Conflict, NotFound, Refused
from tunewheel_testing.adapters import SHA
from tunewheel_testing.served import served


@pytest.fixture
def client(api: FastAPI) -> AsyncClient:
    http = httpx.AsyncClient(transport=httpx.ASGITransport(api))
    return AsyncClient("http://console", "k", http=http)


async def test_a_project_and_its_run_are_read_as_the_models_of_the_api(
    client: AsyncClient, state: Any, desk: Any
):
    for event in desk.turn():
        state.apply(event)
    (listed,) = (await client.projects.list()).items
    shown = await client.projects.show("desk")
    assert (listed.project, shown.project, shown.champion) == ("desk", "desk", "desk-1")
    run = await client.runs.show("desk", "latest")
    assert (run.run_id, run.verdict, [point.loss for point in run.losses]) == ("run-1", "passed", [2.0, 1.0])
    (alarm,) = (await client.alarms.list("desk", state="open")).items
    assert (await client.alarms.show("desk", alarm.alarm_id)).detector == alarm.detector


@pytest.fixture
def asked(state: Any, desk: Any) -> Any:
    """A request for a version, which begins a turn."""
    asked = desk.say("dataset.requested", reason="count", request="r2", records_upto={"0": 1})
    state.apply(asked)
    return asked


async def test_a_turn_is_waited_for_until_it_ends(client: AsyncClient, state: Any, desk: Any, asked: Any):
    (turn,) = (await client.turns.list("desk", since=asked.time, state="in flight")).items
    with pytest.raises(Away, match="goes on: "):
        await client.turns.wait("desk", timeout_seconds=0.0)
    waiting = asyncio.create_task(client.turns.wait("desk", poll_seconds=0.01))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    rejected = desk.say("dataset.rejected", spec_sha256=SHA, rows_sha256=SHA, reasons=("too few",))
    state.apply(desk.event(rejected.data, asked))
    assert ((await waiting).turn_id, (await waiting).state) == (turn.turn_id, "ended")


async def test_all_pages_are_walked_by_both_clients(api: FastAPI, client: AsyncClient, state: Any, desk: Any):
    for number in range(7):
        desk.run_id = f"run-{number}"
        state.apply(desk.started())
    found = [run.run_id async for run in client.each(client.runs.list, "desk", limit=3)]
    assert found == [f"run-{number}" for number in reversed(range(7))]
    with served(api) as url, Client(url, "k") as sync:
        assert [run.run_id for run in sync.each(sync.runs.list, "desk", limit=3)] == found
    failed = [run async for run in client.each(client.runs.list, "desk", state="failed")]
    assert failed == []


async def test_refusals_name_the_field(client: AsyncClient, state: Any, desk: Any):
    for number in (1, 2):
        desk.run_id = f"run-123456{number}"
        state.apply(desk.started())
    with pytest.raises(NotFound) as missing:
        await client.runs.show("desk", "run-nothing")
    with pytest.raises(Conflict) as several:
        await client.runs.show("desk", "run-123")
    with pytest.raises(Refused) as wrong:
        await client.runs.list("desk", state="sleeping")
    assert [error.value.param for error in (missing, several, wrong)] == ["run_id", "run_id", "state"]


@pytest.mark.parametrize("name", ["a/b", "..", "a?b#c", "é"])
async def test_a_name_never_leaves_its_place_in_the_path(client: AsyncClient, name: str):
    with pytest.raises(NotFound) as error:
        await client.runs.show(name, "latest")
    assert error.value.status == 404
