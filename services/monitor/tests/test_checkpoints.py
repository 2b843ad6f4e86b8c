"""The state in the store: one process goes on at a time, and whoever comes later finds the newest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tunewheel_contracts.event import new_event
from tunewheel_monitor.checkpoints import KEPT, Checkpoint, Checkpoints, Overtaken
from tunewheel_monitor.fold import fold
from tunewheel_monitor.state import ProjectState, Version
from tunewheel_runtime.store import ObjectStore

from .scores import facts, novel


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return ObjectStore(tmp_path.as_uri())


async def write(checkpoints: Checkpoints, number: int, **offsets: int) -> None:
    await checkpoints.write(Checkpoint("desk", number, ProjectState(offsets=offsets)))


async def test_what_was_written_is_read_with_the_events_to_publish(store: ObjectStore) -> None:
    state, said = ProjectState(offsets={"1": 40}), list[Any]()
    for n in range(40):
        said += fold(state, novel(n), facts())
    events = tuple(new_event(one.data, source="/test", correlation_id="turn") for one in said)
    assert events
    checkpoints = Checkpoints(store)
    await checkpoints.write(Checkpoint("desk", 1, state, events))
    found = await checkpoints.latest("desk")
    assert (found.number, set(found.events)) == (1, set(events))
    assert found.state.as_json() == state.as_json()
    assert found.state.alarms == state.alarms


async def test_a_project_without_any_begins_empty(store: ObjectStore) -> None:
    found = await Checkpoints(store).latest("desk")
    assert (found.number, found.events, found.state.as_json()) == (0, (), ProjectState().as_json())


async def test_only_one_of_two_processes_goes_on(store: ObjectStore) -> None:
    first, second = Checkpoints(store), Checkpoints(store)
    await write(first, 1)
    await write(first, 2, a=1)
    with pytest.raises(Overtaken, match="another monitor has gone on with desk"):
        await write(second, 2, a=2)
    assert (await second.latest("desk")).state.offsets == {"a": 1}


@pytest.mark.parametrize("number", [1, 3, 5])
async def test_one_that_was_away_long_does_not_go_on_where_numbers_were_pruned(
    store: ObjectStore, number: int
) -> None:
    checkpoints = Checkpoints(store)
    for later in range(1, 10):
        await write(checkpoints, later)
    kept = await store.list("monitor/desk/state")
    assert len(kept) == KEPT
    await store.put("monitor/desk/state/000000000004.json", b"{}")  # somebody was killed before it was pruned
    with pytest.raises(Overtaken, match="long ago"):
        await write(checkpoints, number, a=3)
    await write(checkpoints, 10)
    assert await store.list("monitor/desk/state") == [*kept[1:], "monitor/desk/state/000000000010.json"]


async def test_an_erasure_leaves_no_earlier_state_and_the_evidence(store: ObjectStore) -> None:
    checkpoints, evidence = Checkpoints(store), "monitor/desk/alarms/alarm-1.json"
    await store.put(evidence, b"{}")
    await store.put("monitor/desk/encodings/ds-1.static.npy", b"vectors")
    for number in (1, 2, 3):
        await write(checkpoints, number)
    await checkpoints.drop_before("desk", 3)
    assert await store.list("monitor/desk") == [evidence, "monitor/desk/state/000000000003.json"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"format": 2}', b'{"format": 1, "number": 1}', b'{"format": 1, "state": []}'],
)
async def test_a_project_goes_on_with_an_older_state_if_the_newest_cannot_be_read(
    store: ObjectStore, content: bytes
) -> None:
    checkpoints = Checkpoints(store)
    await store.put("monitor/desk/state/000000000002.json", content)
    empty = await checkpoints.latest("desk")
    assert (empty.number, empty.state.offsets) == (2, {})
    assert "000000000002.json" in empty.unreadable
    await store.delete(["monitor/desk/state/000000000002.json"])
    await write(checkpoints, 1, a=1)
    await store.put("monitor/desk/state/000000000002.json", content)
    older = await checkpoints.latest("desk")
    assert (older.number, older.state.offsets) == (2, {"a": 1})
    await write(checkpoints, older.number + 1, a=3)
    newest = await checkpoints.latest("desk")
    assert (newest.number, newest.state.offsets, newest.unreadable) == (3, {"a": 3}, "")


def with_more(value: Any) -> Any:
    """Return JSON with one more field in every object that has fixed fields."""
    more = {"of_a_later_release": {"a": 1}}
    state = value["state"]
    version = state["version"]
    opened = {name: alarm | more for name, alarm in state["alarms"].items()}
    detectors = {name: found | more for name, found in version["detectors"].items()}
    windows = {name: version[name] | more for name in ("answers", "ratings")}
    version = version | windows | {"detectors": detectors} | more
    state = state | {"alarms": opened, "version": version, "trials": state["trials"] | more} | more
    told = value["more_events"]
    return value | {"state": state, "more_events": [*told, told[0] | {"type": "window.dreamt"}]} | more


REQUIRED = ("offsets", "seen", "version", "alarms", "places", "trials", "turns", "concluded")


@pytest.mark.parametrize(
    ("of_state", "of_version"),
    [*(({name: ...}, {}) for name in REQUIRED)]
    + [({"version": empty}, {}) for empty in ({}, [], "", 0, False)]
    + [({}, {name: ...}) for name in ("generation", "detectors", "answers")]
    + [({}, {name: empty}) for name in ("answers", "ratings") for empty in ([], "", None)],
)
async def test_a_checkpoint_that_lacks_what_every_release_wrote_is_not_read_as_empty(
    store: ObjectStore, of_state: dict[str, Any], of_version: dict[str, Any]
) -> None:
    checkpoints = Checkpoints(store)
    await write(checkpoints, 1, a=1)
    state = ProjectState(offsets={"a": 2}, version=Version("model-1", "ds-1", 3))
    await checkpoints.write(Checkpoint("desk", 2, state))
    path = "monitor/desk/state/000000000002.json"
    written = json.loads(await store.read(path) or b"")
    for part, changes in ((written["state"]["version"], of_version), (written["state"], of_state)):
        part |= changes
        for name in [name for name, value in changes.items() if value is ...]:
            del part[name]
    await store.replace(path, json.dumps(written).encode())
    found = await checkpoints.latest("desk")
    assert (found.number, found.state.offsets) == (2, {"a": 1})
    assert path in found.unreadable


async def test_a_checkpoint_of_a_release_that_knew_fewer_fields_is_read(store: ObjectStore) -> None:
    checkpoints = Checkpoints(store)
    await write(checkpoints, 1, a=1)
    path = "monitor/desk/state/000000000001.json"
    written = json.loads(await store.read(path) or b"")
    for name in ("ended", "figures", "slices"):
        del written["state"][name]
    await store.replace(path, json.dumps(written).encode())
    first, second = await checkpoints.latest("desk"), await checkpoints.latest("desk")
    assert (first.state.offsets, first.unreadable) == ({"a": 1}, "")
    first.state.slices["a"] = 1
    assert second.state.slices == {}


async def test_fields_of_a_later_release_are_ignored_at_each_level(store: ObjectStore) -> None:
    state, said = ProjectState(offsets={"1": 40}), list[Any]()
    for n in range(40):
        said += fold(state, novel(n), facts())
    checkpoints, path = Checkpoints(store), "monitor/desk/state/000000000001.json"
    events = tuple(new_event(one.data, source="/test") for one in said)
    await checkpoints.write(Checkpoint("desk", 1, state, events))
    written = await store.read(path)
    assert written is not None
    assert "window.judged" not in {event["type"] for event in json.loads(written)["events"]}
    await store.replace(path, json.dumps(with_more(json.loads(written))).encode())
    found = await checkpoints.latest("desk")
    assert (found.unreadable, found.state.alarms) == ("", state.alarms)
    assert {event.id for event in found.events} == {event.id for event in events}
    assert found.state.version is not None
    assert found.state.version.answers == state.version.answers  # type: ignore[union-attr]
    for n in range(40, 80):
        fold(found.state, novel(n), facts())
