"""Projects at rest: what a start reads of the checkpoint is what the log says."""

from __future__ import annotations

import asyncio
import json
import random
import weakref
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import pytest
from tunewheel_console import archive as archives
from tunewheel_console.archive import Archive, ForeignLog
from tunewheel_console.checkpoint import CHUNK, FOLDER, INDEX, Checkpoint, Packed, in_log_order
from tunewheel_console.control.commands import audit_of
from tunewheel_console.control.projects import summary_of
from tunewheel_console.state import ConsoleState
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.topics import BY_NAME, PROJECT_DECLARED, TopicSpec
from tunewheel_runtime.deadletter import Position, Undecoded
from tunewheel_runtime.log import Place, Span, decode
from tunewheel_runtime.settings import ServiceSettings
from tunewheel_runtime.store import ObjectStore
from tunewheel_runtime.view import LogReader
from tunewheel_testing.random_logs import random_log

from .conftest import Desk

NOW = datetime(2026, 2, 1, tzinfo=UTC)


class Topics:
    """The log of a broker, in memory. ``begins``: where a partition begins, if not at 0."""

    def __init__(self, *events: Envelope[Any]) -> None:
        self.records: dict[Place, list[Undecoded]] = {}
        self.begins: dict[Place, int] = {}
        self.add(*events)

    def add(self, *events: Envelope[Any]) -> list[Undecoded]:
        return [self.put(one.to_kafka(), int(one.time.timestamp() * 1000)) for one in events]

    def put(self, record: Any, logged_ms: int = 0) -> Undecoded:
        partition = self.records.setdefault((record.topic, 0), [])
        at = Position(record.topic, 0, len(partition))
        partition.append(Undecoded(at, record.key, record.value, dict(record.headers), logged_ms))
        return partition[-1]


class Reader(LogReader):
    """Reads ``Topics``. What it makes of a record is the reader's own."""

    topics: Topics

    async def look(self) -> dict[Place, Span]:
        found = self.topics.records
        return {at: Span(self.topics.begins.get(at, 0), len(records)) for at, records in found.items()}


class Console:
    """One process of the console, as it is after its start."""

    def __init__(self, topics: Topics, store: ObjectStore, *, rules: str = "1 required") -> None:
        self.topics, self.state = topics, ConsoleState()
        self.told: list[Envelope[Any]] = []
        self.decoded = 0
        self.archive = Archive(self.state, Checkpoint(store), rules=rules, told=self.told.append)
        self.archive.reader = self.reader = Reader(
            ServiceSettings(), tuple(BY_NAME.values()), lambda event, _: self.state.apply(event),
            failed=lambda error: None, forget=self.state.forget, begins=self.archive.begins,
            keep=self.archive.keep, check=self._count,
        )  # fmt: skip
        self.reader.topics = topics

    def _count(self, _topic: TopicSpec, event: Envelope[Any], _record: Undecoded) -> Envelope[Any]:
        self.decoded += 1
        return event

    async def start(self) -> int:
        """Start, and return how many records were read of the log."""
        begins, read = await self.archive.begins(), 0
        for (topic, partition), records in self.topics.records.items():
            for record in records[(begins.get(topic) or {}).get(str(partition), 0) :]:
                read += 1
                await self.take(record)
        await self.archive.start()
        return read

    async def take(self, *records: Undecoded) -> None:
        for record in records:
            await self.reader._decode_and_apply(record)


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    return lambda records: monkeypatch.setattr(archives, "MOST_IN_MEMORY", records)


async def settled(console: Console) -> None:
    """Let the console's background work fold what is behind, and write."""
    archive, resting = console.archive, console.state.projects.resting
    while archive._written is None or archive._writing.locked() or any(r.is_behind for r in resting.values()):
        assert archive._task is None or not archive._task.done() or archive._task.exception() is None
        await asyncio.sleep(0.01)


async def stopped(topics: Topics, store: ObjectStore) -> Console:
    """Run a console once, from its start to its end."""
    console = Console(topics, store)
    await console.start()
    await settled(console)
    await console.archive.stop()
    return console


def told(state: ConsoleState, name: str = "desk") -> tuple[Any, ...]:
    project = state.projects[name]
    runs = [(run.run_id, run.state, run.verdict, run.curve()) for run in project.runs.values()]
    audit = in_turn(audit_of(project.commands))
    return summary_of(project), audit, runs, project.stages, project.spec, project.desired


def in_turn(audit: Iterable[Any]) -> list[Any]:
    return sorted(audit, key=lambda one: one.command_id)


def folded(events: Iterable[Envelope[Any]]) -> ConsoleState:
    state = ConsoleState()
    for event in events:
        state.apply(event)
    return state


def of(name: str) -> list[Envelope[Any]]:
    desk = Desk(name)
    return [desk.declared(), desk.requested(), *desk.turn()]


@pytest.fixture
def two() -> list[Envelope[Any]]:
    return [*of("desk"), *of("other")]


async def test_a_console_that_has_started_tells_where_its_projects_stand_still(store: Any, room: Any) -> None:
    desk = Desk("desk")
    topics = Topics(desk.declared(), desk.requested())
    for records in (1_000, 0):  # in memory, and at rest
        room(records)
        console = Console(topics, store)
        await console.start()
        async with asyncio.timeout(120):
            while not console.state.waits:
                await asyncio.sleep(0.01)
        await console.archive.stop()
        assert ("desk" in console.state.projects.resting) == (records == 0)
        assert set(console.state.waits) == {("desk", "building")}


@pytest.mark.parametrize("field", ["waits", "is_asked"])
async def test_a_checkpoint_without_what_is_told_now_is_folded_again(
    store: Any, room: Any, field: str
) -> None:
    """An earlier state of the same release wrote it."""
    room(0)
    desk = Desk("desk")
    topics = Topics(desk.declared(), desk.requested())
    await stopped(topics, store)
    index = json.loads(await store.read(INDEX))
    del index["projects"]["desk"]["rest"][field]
    index["rules"] = "1 required"
    await store.replace(INDEX, json.dumps(index).encode())
    console = await stopped(topics, store)
    assert console.decoded
    console.state.look(datetime.now(UTC))
    assert set(console.state.waits) == {("desk", "building")}


async def test_a_start_from_the_checkpoint_decodes_nothing_and_tells_the_same(
    two: Any, store: Any, room: Any
):
    topics = Topics(*two)
    room(0)
    await stopped(topics, store)
    again, whole = Console(topics, store), folded(two)
    read = await again.start()
    assert read < sum(map(len, topics.records.values()))
    assert again.decoded == 0
    assert again.state.projects == {}
    for name in ("desk", "other"):
        rest = again.state.projects.resting[name]
        assert (rest.summary, in_turn(rest.audit)) == told(whole, name)[:2]
        assert told(again.state, name) == told(whole, name), "when somebody asks for it"
    assert again.state.projects.resting == {}
    await again.archive.stop()


@pytest.mark.parametrize("written", [0, 1, 5, 9])
async def test_what_comes_after_the_checkpoint_counts(two: Any, store: Any, written: int, room: Any):
    topics = Topics(*two[:written])
    room(0)
    if written:
        await stopped(topics, store)
    topics.add(*two[written:])
    again = Console(topics, store)
    await again.start()
    assert {event.id for event in again.told} == {event.id for event in two[written:]}
    await settled(again)
    for name, rest in again.state.projects.resting.items():
        assert rest.summary == told(folded(two), name)[0]
    assert told(again.state) == told(folded(two))
    await again.archive.stop()


@pytest.mark.parametrize("seed", range(8))
async def test_random_logs_cut_at_random_places_say_what_the_whole_log_says(seed: int, store: Any, room: Any):
    dice, events = random.Random(seed), random_log(seed).in_some_order(seed)
    first, second = sorted(dice.sample(range(len(events)), 2))
    room(dice.choice([0, 200_000]))
    topics = Topics(*events[:first])
    await stopped(topics, store)
    topics.add(*events[first:second])
    console = Console(topics, store)
    await console.start()
    await console.take(*topics.add(*events[second:]))
    await settled(console)
    whole, read = ConsoleState(), [record for records in topics.records.values() for record in records]
    for record in in_log_order(read):
        whole.apply(decode(record))
    project = events[0].project
    assert told(console.state, project)[:2] == told(whole, project)[:2]
    await console.archive.stop()
    again = Console(topics, store)
    await again.start()
    assert told(again.state, project) == told(whole, project)
    await again.archive.stop()


async def test_an_event_of_a_project_at_rest_takes_it_into_memory_first(two: Any, store: Any, room: Any):
    topics = Topics(*two[:-1])
    room(0)
    await stopped(topics, store)
    again = Console(topics, store)
    await again.start()
    await again.take(*topics.add(two[-1]))
    assert told(again.state, "other") == told(folded(two), "other")
    assert "desk" in again.state.projects.resting
    await again.archive.stop()


async def test_a_project_that_was_removed_stays_removed(two: Any, store: Any, room: Any):
    """Kafka drops a tombstone after a day, so the checkpoint holds nothing of compacted topics."""
    topics = Topics(*two)
    await stopped(topics, store)
    place = (PROJECT_DECLARED.name, 0)
    topics.records[place] = [one for one in topics.records[place] if one.key != b"desk"]
    room(0)
    again = Console(topics, store)
    await again.start()
    assert again.state.projects["desk"].spec is None
    assert again.state.projects["other"].spec is not None
    await again.archive.stop()


async def test_a_project_that_is_asked_for_or_waits_for_people_is_not_laid_to_rest(store: Any, room: Any):
    desk = Desk("waits")
    waits = [desk.declared(), desk.started(), desk.review_requested()]
    topics = Topics(*of("asked"), *of("idle"), *waits)
    console = Console(topics, store)
    await console.start()
    await settled(console)
    assert {*console.state.projects} == {"asked", "idle", "waits"}
    console.state.projects.get("asked")
    room(0)
    console.archive._make_room()
    assert ({*console.state.projects}, {*console.state.projects.resting}) == ({"asked", "waits"}, {"idle"})
    await console.archive.stop()


@pytest.mark.parametrize("damage", ["index", "file", "missing", "format"])
async def test_a_checkpoint_that_cannot_be_used_is_left_alone_and_the_log_is_read(
    two: Any, store: Any, damage: str
):
    topics = Topics(*two)
    await stopped(topics, store)
    index = await store.read(INDEX)
    name = next(path for path in await store.list(FOLDER) if path != INDEX)
    match damage:
        case "index":
            await store.replace(INDEX, index[:-20])
        case "format":
            await store.replace(INDEX, index.replace(b'"records"', b'"rows"'))
        case "missing":
            await store.delete([name])
        case _:
            await store.replace(name, b"x")
    again = Console(topics, store)
    assert await again.start() == sum(map(len, topics.records.values()))
    assert told(again.state) == told(folded(two))
    await again.archive.stop()


@pytest.mark.parametrize("other", [[], of("desk"), [*of("new"), *of("desk"), *of("other")]])
async def test_the_checkpoint_of_another_log_is_not_used(two: Any, store: Any, other: Any):
    """The broker lost its data, or is another one; its topics may be shorter, or longer, than before."""
    await stopped(Topics(*two), store)
    topics = Topics(*of("first"), *other)
    again = Console(topics, store)
    with pytest.raises(ForeignLog):
        await again.start()
    await again.start()  # as the service does after such an error
    expected = folded([*of("first"), *other])
    assert {*again.state.projects, *again.state.projects.resting} == {*expected.projects}
    assert told(again.state, "first") == told(expected, "first")
    await again.archive.stop()


async def test_what_was_deleted_from_the_log_is_deleted_from_the_store(two: Any, store: Any):
    topics = Topics(*two)
    console = await stopped(topics, store)
    topics.begins["review.submitted", 0] = topics.begins["train.started", 0] = 1
    await console.archive.write()
    assert await store.list(FOLDER) == []
    again = Console(topics, store)
    assert await again.start() == sum(map(len, topics.records.values()))
    await again.archive.stop()


async def test_the_checkpoint_holds_topics_that_are_kept_for_ever_and_no_others(two: Any, store: Any):
    await stopped(Topics(*two), store)
    files = [await store.read(path) for path in await store.list(FOLDER) if path != INDEX]
    topics = {record.position.topic for data in files for record in Packed(data)}
    assert "train.completed" in topics
    assert not {"train.progressed", "drift.detected", "project.declared", "serving.desired"} & topics


async def test_what_another_release_said_counts_until_each_project_was_folded_anew(
    two: Any, store: Any, room: Any
):
    topics = Topics(*two)
    await stopped(topics, store)
    room(0)
    again = Console(topics, store, rules="2 required")
    await again.start()
    before = {name: rest.is_behind for name, rest in again.state.projects.resting.items()}
    assert (before, again.decoded) == ({"desk": True, "other": True}, 0)
    await settled(again)
    assert again.decoded == len(two)
    assert not any(rest.is_behind for rest in again.state.projects.resting.values())
    await again.archive.stop()


async def test_two_consoles_write_beside_each_other(two: Any, store: Any):
    topics = Topics(*two)
    one, other = Console(topics, store), Console(topics, store)
    for console in (one, other):
        await console.start()
        await settled(console)
    for console in (one, other, one):
        await console.take(*topics.add(Desk("desk").controlled("pause")))
        await console.archive.write()
        await store.delete([path for path in await store.list(FOLDER) if path != INDEX][:1])
        await console.archive.write()
        again = Console(topics, store)
        await again.start()
        assert told(again.state, "other") == told(folded(two), "other")
        await again.archive.stop()


def test_packed_records_come_back_as_they_were_in_log_order(two: Any):
    topics, packed = Topics(*two), Packed()
    put = [record for records in topics.records.values() for record in records] * (CHUNK // len(two) + 1)
    for record in put:
        packed.add(record)
    assert list(packed) == list(Packed(packed.to_bytes())) == put
    once = of("desk")
    merged = in_log_order([*reversed(Topics().add(*once))])
    assert [one.headers["ce_id"].decode() for one in merged] == [event.id for event in once]


async def test_a_record_that_is_no_event_is_skipped_at_rest_too(store: Any, room: Any, two: Any):
    topics = Topics(*two)
    broken = two[0].to_kafka()
    for value in (b"{", b"\xff", b"[]"):
        topics.put(type(broken)("train.planned", b"desk", value, broken.headers))
        topics.put(type(broken)("train.planned", b"ghost", value, {"ce_project": b"ghost"}))
    room(0)
    await stopped(topics, store)
    again = Console(topics, store)
    await again.start()
    assert {*again.state.projects.resting} == {"desk", "other"}
    assert told(again.state) == told(folded(two))
    await again.archive.stop()


async def test_a_project_that_is_laid_to_rest_leaves_the_memory(two: Any, store: Any, room: Any):
    console = Console(Topics(*two), store)
    await console.start()
    await settled(console)
    before = weakref.ref(console.state.projects["desk"])
    room(0)
    console.archive._make_room()
    assert before() is None
    await console.archive.stop()


async def test_a_dead_letter_of_a_project_at_rest_counts(two: Any, store: Any, room: Any):
    """The letter may be read after the summary was made, at this start or at an earlier one."""
    desk = Desk("desk")
    submitted = desk.of_run("review.submitted", reviewer="eve", verdict="approved")
    topics = Topics(*two, submitted)
    room(0)
    console = Console(topics, store)
    await console.start()
    await settled(console)
    rest = console.state.projects.resting["desk"]
    console.state.refuse(submitted)
    assert rest.is_behind
    assert not console.state.projects["desk"].runs["run-1"].reviews
    await console.archive.write()
    await console.archive.stop()
    again = Console(topics, store)
    await again.start()
    again.state.refuse(submitted)
    assert not again.state.projects.resting["desk"].is_behind, "the summary counts it"
    assert not again.state.projects["desk"].runs["run-1"].reviews
    await again.archive.stop()


async def test_a_dead_letter_that_is_read_while_its_project_is_folded_counts(two: Any, store: Any, room: Any):
    desk = Desk("desk")
    submitted = desk.of_run("review.submitted", reviewer="eve", verdict="approved")
    stopped_by = desk.controlled("pause")
    topics = Topics(*two, submitted, stopped_by)
    room(0)
    console = Console(topics, store)
    await console.start()
    await settled(console)
    folding = console.archive._folding("desk")
    for _ in range(2 * sum(packed.count for packed in console.archive._packed["desk"])):
        next(folding)
    console.state.refuse(submitted)
    console.state.refuse(stopped_by)
    assert [*folding] == []
    run = console.state.projects["desk"].runs["run-1"]
    assert (run.reviews, run.controls) == ({}, {})
    await console.archive.stop()
