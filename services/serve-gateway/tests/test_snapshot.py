"""A gateway that starts while Kafka is away answers by what it had read before."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_serve_gateway import snapshot
from tunewheel_serve_gateway.settings import Settings
from tunewheel_serve_gateway.snapshot import Snapshot
from tunewheel_testing.log import wrap
from tunewheel_testing.specs import spec_of
from tunewheel_testing.waiting import until

from .test_catalog import desired
from .test_on_demand import register


def declared(project: str) -> Any:
    return wrap(ProjectDeclared(project=project, spec=spec_of(project)))


def snapshot_of(path: Path, **settings: Any) -> Snapshot:
    return Snapshot(path / "work" / "snapshot.jsonl", Settings(identity="open", **settings))


def test_a_snapshot_is_read_as_it_was_written(tmp_path: Path):
    events = [declared("desk"), desired(4, "a", cause="1")]
    snapshot_of(tmp_path).write([events[0]])
    snapshot_of(tmp_path).write(events)
    found = snapshot_of(tmp_path, bootstrap_servers="localhost:9092").read()
    assert found is not None
    assert found.catalog.events == events
    assert [file.name for file in (tmp_path / "work").iterdir()] == ["snapshot.jsonl"]


def swapped(content: bytes) -> bytes:
    return content.replace(b"desk", b"Desk")


DAMAGES: list[Callable[[bytes], bytes]] = [
    lambda content: content[:-1],
    lambda content: content[: len(content) // 2],
    lambda content: b"",
    lambda content: b"[]\n",
    lambda content: b"\x00" * len(content),
    lambda content: content + b"{}\n",
    swapped,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_snapshot_is_not_used(tmp_path: Path, damage: Callable[[bytes], bytes]):
    snapshot_of(tmp_path).write([declared("desk"), desired(4, "a", cause="1")])
    file = tmp_path / "work" / "snapshot.jsonl"
    file.write_bytes(damage(file.read_bytes()))
    assert snapshot_of(tmp_path).read() is None


@pytest.mark.parametrize("other", [{"bootstrap_servers": "other:9092"}, {"topic_prefix": "acme."}])
def test_a_snapshot_of_another_log_or_format_is_not_used(tmp_path: Path, other: dict[str, Any]):
    assert snapshot_of(tmp_path).read() is None
    snapshot_of(tmp_path).write([declared("desk")])
    assert snapshot_of(tmp_path, **other).read() is None
    file = tmp_path / "work" / "snapshot.jsonl"
    first, rest = file.read_bytes().split(b"\n", 1)
    file.write_bytes(json.dumps({**json.loads(first), "format": 2}).encode() + b"\n" + rest)
    assert snapshot_of(tmp_path).read() is None


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_an_event_of_a_later_release_costs_no_other(tmp_path: Path):
    strange = desired(4, "a", cause="1")
    object.__setattr__(strange.data, "generation", "four")
    snapshot_of(tmp_path).write([strange, declared("desk")])
    found = snapshot_of(tmp_path).read()
    assert found is not None
    assert [event.project for event in found.catalog.events] == ["desk"]


async def test_a_gateway_without_the_log_answers_by_its_snapshot_until_the_log_replaces_it(
    make_world: Any, tmp_path: Path
):
    world = await make_world()
    world.declare()
    world.declare("gone")
    await register(world, "desk-7", judged=True)
    await world.desire(production=("desk-1", 100))
    await world.serving(production="desk-1")
    settings = world.gateway._settings
    file = Snapshot(settings.work_for("serve-gateway") / "snapshot.jsonl", settings)
    await until(lambda: (found := file.read()) is not None and len(found.catalog.events) == 5)

    started = await make_world(beside=world, start=False)
    started.generation = world.generation
    assert await started.gateway.start_without_log()
    assert await started.said() == "desk-1: hello"
    assert await started.said(model="desk-7") == "desk-7: hello"
    assert await started.said(model="gone/base") == "org/Tiny-Base: hello"
    assert "Kafka has not answered" in started.warnings["kafka_not_read"]
    assert not started.broker.events, "completions wait until the erasures were read"
    for event in world.log:  # an older state is read again before the newest
        if event.project != "gone":
            started.tell(event)
    await started.desire(production=("desk-2", 100))
    assert await started.said() == "desk-1: hello", "not before the log was read to its end"
    await started.gateway.start()
    await started.serving(production="desk-2")
    assert await started.said() == "desk-2: hello"
    async with await started.chat(model="gone/base") as response:
        assert response.status == 404
    assert started.warnings["kafka_not_read"] is None
    assert len(await started.completions(5)) == 5
    assert not await started.gateway.start_without_log(), "what is stored never replaces what was read"
    assert await started.said() == "desk-2: hello"


async def test_without_a_snapshot_a_gateway_waits_for_the_log(make_world: Any):
    world = await make_world(start=False)
    assert not await world.gateway.start_without_log()
    async with await world.chat() as response:
        assert (response.status, (await response.json())["error"]["code"]) == (503, "unavailable")


async def test_a_snapshot_that_cannot_be_written_is_a_warning_until_it_can_be(
    make_world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(snapshot, "SECONDS_BETWEEN", 0.01)
    (tmp_path / "work" / "serve-gateway" / "snapshot.jsonl").mkdir(parents=True)
    world = await make_world(work_dir=tmp_path / "work")
    world.declare()
    await until(lambda: world.warnings.get("snapshot_not_written"))
    assert await world.said() == "org/Tiny-Base: hello"
    (tmp_path / "work" / "serve-gateway" / "snapshot.jsonl").rmdir()
    await until(lambda: world.warnings["snapshot_not_written"] is None)


async def test_a_gateway_that_stops_keeps_what_it_had_just_read(make_world: Any):
    world = await make_world()
    world.declare()
    settings = world.gateway._settings
    file = Snapshot(settings.work_for("serve-gateway") / "snapshot.jsonl", settings)
    await until(lambda: file.read() is not None)
    world.declare("new")
    await world.gateway.close()
    assert (found := file.read()) is not None
    assert found.catalog.spec("new") is not None
