"""Tunewheel's own Python client reads and commands over the real routes."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from tunewheel_client import AsyncClient, Away, Client, Conflict, Gap, NotFound, Refused
from tunewheel_contracts.api.services import GroupLag
from tunewheel_contracts.event import new_event
from tunewheel_testing.adapters import BASE, SHA
from tunewheel_testing.served import served, serving
from tunewheel_testing.waiting import until


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


async def test_each_detectors_newest_figures_are_read_and_what_the_spec_switches_off_is_off(
    client: AsyncClient, state: Any, desk: Any
):
    state.apply(desk.declared())
    for event in (desk.watched("novelty"), desk.watched("length"), desk.watched("novelty", state="near")):
        state.judge(event)
    elsewhere = {"project": "other", "figure_id": "other/novelty"}
    state.judge(new_event(desk.watched("novelty").data.model_copy(update=elsewhere), source="/test"))
    found = (await client.detectors.list("desk")).items
    assert [(one.detector, one.state) for one in found] == [("novelty", "near"), ("length", "calm")]
    assert found[0].series.effect == (0.01, 0.04)
    spec = desk.spec()
    off = spec.model_copy(update={"drift": spec.drift.model_copy(update={"disabled": ("length",)})})
    state.apply(desk.say("project.declared", spec=off))
    found = (await client.detectors.list("desk")).items
    assert [(one.detector, one.state) for one in found] == [("novelty", "near"), ("length", "off")]
    with pytest.raises(NotFound):
        await client.detectors.list("nope")


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


@pytest.mark.parametrize("name", ["a/b", "...", "a?b#c", "é"])
async def test_a_name_never_leaves_its_place_in_the_path(client: AsyncClient, name: str):
    with pytest.raises(NotFound) as error:
        await client.runs.show(name, "latest")
    assert error.value.status == 404


@pytest.mark.parametrize("name", [".", "..", ""])
async def test_a_name_that_urls_leave_out_is_not_sent(client: AsyncClient, name: str):
    with pytest.raises(Refused, match="names nothing"):
        await client.runs.show("desk", name)


async def test_events_are_followed_over_a_socket(api: FastAPI, state: Any, desk: Any, feed: Any):
    started, progressed = desk.started(), [desk.progressed(step, 1.0) for step in (1, 2)]
    feed.add(started)
    async with serving(api) as url, AsyncClient(url, "k") as client:
        async with client.events.follow(project="desk", after=started.id) as events:
            first = asyncio.create_task(anext(events))
            await until(lambda: feed._readers)
            for event in progressed:
                feed.add(event)
            assert [(await first).id, (await anext(events)).id] == [event.id for event in progressed]
        with pytest.raises(Refused) as error:
            async with client.events.follow(types=["no.type"]) as events:
                await anext(events)
        assert error.value.param == "type"
        async with client.events.follow(after="lost") as events:
            assert await anext(events) == Gap("lost")


async def test_what_operators_look_at_is_read(client: AsyncClient, lags: Any, state: Any, desk: Any):
    names = {"model_id": "desk-1", "run_id": "run-1", "dataset_id": "ds-1", "adapter": desk.adapter()}
    state.apply(desk.say("model.registered", kind="adapter", base=BASE, **names))
    lags.append(GroupLag(group="train.all", service="train", topic="dataset.versioned", behind=3))
    services = await client.services.list()
    assert (services.groups[0].behind, "eval" in services.silent) == (3, True)
    assert (await client.dead_letters.list(project="desk", topic="train.control")).total == 0
    assert "/v1/projects/desk/models/desk-1/card" in await client.models.card("desk", "desk-1")


async def test_a_command_is_given_named_and_waited_for(
    operator: AsyncClient, door: Any, state: Any, desk: Any
):
    for event in (desk.declared(), desk.started()):
        state.apply(event)
    paused = await operator.runs.pause("desk", "latest", request="mine")
    assert (await operator.runs.pause("desk", "run-1", request="mine")).command_id == paused.command_id
    assert (paused.run_id, paused.action, door.log.events[-1].data.principal.name) == (
        "run-1",
        "pause",
        "ann",
    )
    built = await operator.datasets.build("desk", wait=False)
    with pytest.raises(Away, match="was not answered"):
        await operator.commands.wait("desk", built.command_id, timeout_seconds=0.0)
    request = next(event for event in door.log.events if event.id == built.command_id)
    state.apply(desk.event(desk.versioned().data, request))
    done = await operator.commands.wait("desk", built.command_id)
    assert (done.state, done.led_to) == ("done", "ds-1")
    listed = await operator.commands.list("desk", state="done")
    assert built.command_id in {command.command_id for command in listed.items}


async def test_a_command_that_a_service_refuses_raises_with_the_reason(
    operator: AsyncClient, state: Any, desk: Any
):
    for event in desk.turn():
        state.apply(event)
    ordered = await operator.models.retire("desk", "champion", reason="a fair", force=True)
    refused = desk.refused("retire", ordered.model_id).data.model_copy(
        update={"command_id": ordered.command_id, "reason": "is in production", "field": "model_id"}
    )
    state.apply(desk.event(refused))
    with pytest.raises(Refused) as error:
        await operator.commands.wait("desk", ordered.command_id)
    assert (error.value.param, error.value.message) == ("model_id", "is in production")
