"""Versions from events, with a real store and real vectors; the log is a list (Kafka: tests/integration)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.errors import TransientError
from tunewheel_contracts.event import Envelope, decode_data, new_event
from tunewheel_contracts.events.data import RecordKind
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.upstream import DocumentWithdrawn, ErasureRequested, ProjectDeclared
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_embedding.embedders import Embedders
from tunewheel_index.building import Builder, Upto
from tunewheel_index.erasing import carry_out
from tunewheel_index.indexer import Indexer, apply
from tunewheel_index.metrics import Metrics
from tunewheel_index.project import Project
from tunewheel_index.storing import IndexStore
from tunewheel_retrieval.index import Index
from tunewheel_runtime.deadletter import Position
from tunewheel_runtime.store import ArtifactConflict, ObjectStore
from tunewheel_runtime.telemetry import make_telemetry

from .conftest import MINUTE, NOON, record

EMBEDDERS = Embedders(AllowedSources())


class Latest:
    """A view without Kafka."""

    def __init__(self) -> None:
        self._latest: dict[str, Envelope[Any]] = {}
        self._observers: list[Callable[[Envelope[Any]], None]] = []

    def get(self, key: str) -> Envelope[Any] | None:
        return self._latest.get(key)

    def values(self) -> list[Envelope[Any]]:
        return list(self._latest.values())

    def on_change(self, observer: Callable[[Envelope[Any]], None]) -> None:
        self._observers.append(observer)

    def on_removal(self, observer: Callable[[str], None]) -> None:
        """Nothing is removed here."""

    def tell(self, envelope: Envelope[Any]) -> None:
        self._latest[envelope.project] = envelope
        for observer in self._observers:
            observer(envelope)


def spec(**retrieval: Any) -> ProjectSpec:
    return ProjectSpec.model_validate(
        {
            "project": "shop",
            "base_model": "some/model",
            "task": {"system_prompt": "Answer."},
            "criteria": [{"metric": "perplexity", "maximum": 9}],
            "retrieval": retrieval,
        }
    )


class World:
    """A log and a store that outlive processes."""

    def __init__(self) -> None:
        self.store = ObjectStore("memory://")
        self.records: list[Envelope[Any]] = []
        self.takebacks: list[Envelope[Any]] = []
        self.specs: list[Envelope[Any]] = []
        self.named: list[IndexVersioned] = []
        self.taken_back: list[str] = []
        self.read_whole = 0
        self.warnings: dict[str, str | None] = {}
        self.refuses = 0
        self.metrics = Metrics(make_telemetry("index", None))

    # the part of a service that a builder writes through
    def new(self, data: Any) -> Envelope[Any]:
        return new_event(data, source="/test")

    async def publish(self, envelope: Envelope[Any]) -> None:
        if self.refuses:
            self.refuses -= 1
            raise TransientError("the broker is away")
        self.named.append(envelope.data)

    async def take_back(self, project: str) -> None:
        self.taken_back.append(project)

    def publish_record(self, document_id: str, text: str, minute: int = 0, **changes: Any) -> Envelope[Any]:
        made = new_event(record(document_id, text, **changes), source="/test", time=NOON + minute * MINUTE)
        self.records.append(made)
        return made

    def declare(self, **retrieval: Any) -> Envelope[Any]:
        made = new_event(ProjectDeclared(project="shop", spec=spec(**retrieval)), source="/test")
        self.specs.append(made)
        return made


class Process:
    """One process of the index over its ``world``."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.declared, self.newest = Latest(), Latest()
        self.versions = IndexStore(world.store)
        self.indexer = Indexer(
            self.declared, self.newest, self.versions,  # type: ignore[arg-type]
            metrics=world.metrics, quiet_seconds=0.0, warn=self._warn, failed=self._failed,
        )  # fmt: skip
        self._read = 0
        self.indexer.build = Builder(
            world, self.versions, EMBEDDERS, self._upto, self._again,  # type: ignore[arg-type]
            metrics=world.metrics, max_passages=1_000, kept_versions=3,
        ).build  # fmt: skip

    async def start(self) -> Process:
        for envelope in self.world.specs:
            self.declared.tell(envelope)
        for data in self.world.named:
            self.newest.tell(new_event(data, source="/test"))
        for offset, envelope in enumerate(self.world.takebacks):
            self.indexer.on_takeback(envelope, Position("t", 0, offset))
        begins = (await self.indexer.begins())[topics.RECORD_INGESTED.name]
        self._read = len(self.world.records) if begins is None else begins.get("0", 0)
        self.follow()
        return self

    def follow(self) -> None:
        """Read the records that came since."""
        for offset in range(self._read, len(self.world.records)):
            self.indexer.on_record(self.world.records[offset], Position("r", 0, offset))
        self._read = len(self.world.records)

    async def take_back(self, data: Any, minute: int) -> Envelope[Any]:
        made = new_event(data, source="/test", time=NOON + minute * MINUTE)
        self.world.takebacks.append(made)
        self.indexer.on_takeback(made, Position("t", 0, len(self.world.takebacks) - 1))
        return made

    async def settle(self) -> Index | None:
        """Build what is to be built, and return the newest version as the store has it."""
        self.follow()
        await self.indexer.settle("shop")
        return await self.versions.open(self.world.named[-1].manifest) if self.world.named else None

    def _upto(self) -> Upto:
        return Upto({"0": self._read}, {"0": len(self.world.takebacks)}, {"0": 0})

    async def _again(self, project: Project) -> None:
        self.world.read_whole += 1
        for envelope in self.world.records:
            apply(project, envelope, again=True)
        project.is_whole = True

    def _warn(self, name: str, text: str | None) -> None:
        self.world.warnings[name] = text

    def _failed(self, error: BaseException) -> None:
        raise error


@pytest.fixture
def world() -> World:
    return World()


def texts(index: Index | None) -> dict[str, str]:
    return {} if index is None else {row.document_id: row.text for row in index.rows}


async def test_a_change_reads_nothing_again_and_the_same_again_is_no_version(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "The bell rings twice.")
    world.publish_record("b.md", "Lockers jam.")
    world.publish_record("t-1", "A ticket.", kind=RecordKind.TICKET)
    process = await Process(world).start()
    assert texts(await process.settle()) == {"a.md": "The bell rings twice.", "b.md": "Lockers jam."}
    assert world.read_whole == 1
    world.publish_record("a.md", "The bell rings thrice.", 1)
    assert texts(await process.settle())["a.md"] == "The bell rings thrice."
    world.publish_record("a.md", "The bell rings thrice.", 1)
    await process.settle()
    assert [one.changed for one in world.named] == [2, 1]
    assert world.named[1].previous == world.named[0].index_id
    assert world.named[1].records_upto == {"0": 4}
    assert world.read_whole == 1


async def test_the_next_process_goes_on_where_the_newest_version_left_it(world: World) -> None:
    world.declare()
    for name in ("a.md", "b.md", "c.md"):
        world.publish_record(name, f"About {name}.")
    await (await Process(world).start()).settle()
    world.publish_record("b.md", "Other words.", 1)
    second = await Process(world).start()
    index = await second.settle()
    assert texts(index) == {"a.md": "About a.md.", "b.md": "Other words.", "c.md": "About c.md."}
    assert world.read_whole == 1, "the first process's, which had no version"
    third = await Process(world).start()
    await third.settle()
    assert len(world.named) == 2, "nothing changed"
    # and a process that knew nothing comes to the same
    fresh = World()
    fresh.specs, fresh.records = world.specs, world.records
    again = await (await Process(fresh).start()).settle()
    assert again is not None
    assert index is not None
    assert again.manifest == index.manifest


async def test_what_could_not_be_named_is_built_again_under_the_same_name(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    world.refuses = 1
    with pytest.raises(TransientError):
        await (await Process(world).start()).settle()
    stored = set(await world.store.list("indexes"))
    index = await (await Process(world).start()).settle()
    assert texts(index) == {"a.md": "One."}
    assert stored == set(await world.store.list("indexes"))


async def test_a_worker_builds_by_itself_tells_troubles_and_tries_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewheel_index.indexer.FIRST_WAIT_SECONDS", 0.01)
    world.declare()
    world.publish_record("a.md", "One.")
    world.refuses = 2
    process = await Process(world).start()
    await process.indexer.start()
    async with asyncio.timeout(30):
        while not world.named or world.warnings.get("index shop") is not None:
            await asyncio.sleep(0.01)
        other = world.declare(embedding={"kind": "endpoint", "base_url": "http://evil/v1", "model": "m",
                                         "dimensions": 3})  # fmt: skip
        process.declared.tell(other)
        while "TUNEWHEEL_SPEC_HOSTS" not in (world.warnings.get("index shop") or ""):
            await asyncio.sleep(0.01)
        process.declared.tell(world.declare(passage_tokens=16))
        while len(world.named) < 2 or world.warnings.get("index shop") is not None:
            await asyncio.sleep(0.01)
    await process.indexer.stop()
    assert [one.changed for one in world.named] == [1, 0]
    assert world.read_whole == 2, "another configuration needs the texts"
    failed = [world.metrics.value("builds.failed", of=reason) for reason in ("unavailable", "refused")]
    assert (failed, world.metrics.value("versions.named")) == ([2, 1], 2)


async def test_a_project_whose_endpoint_hangs_delays_no_other(world: World) -> None:
    for name in ("slow", "quick"):
        made = spec().model_copy(update={"project": name})
        world.specs.append(new_event(ProjectDeclared(project=name, spec=made), source="/test"))
    process = await Process(world).start()
    build, hangs = process.indexer.build, asyncio.Event()

    async def held(project: Project) -> None:
        if project.name == "slow":
            await hangs.wait()
        await build(project)

    process.indexer.build = held
    await process.indexer.start()
    async with asyncio.timeout(30):
        while not world.named:
            await asyncio.sleep(0.01)
        assert [one.project for one in world.named] == ["quick"]
        hangs.set()
        while len(world.named) < 2:
            await asyncio.sleep(0.01)
    await process.indexer.stop()


async def test_another_configuration_and_a_lost_version_read_the_log_again(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One. " * 40)
    process = await Process(world).start()
    first = await process.settle()
    process.declared.tell(world.declare(passage_tokens=16))
    second = await process.settle()
    assert first is not None
    assert second is not None
    assert len(second.rows) > len(first.rows)
    assert world.read_whole == 2
    folder = f"indexes/shop/{second.manifest.index_id}"
    await world.store.delete([second.manifest.vectors.path])
    assert texts(await (await Process(world).start()).settle()) == texts(second)
    assert world.read_whole == 3
    await world.store.delete(await world.store.list(folder))
    assert texts(await (await Process(world).start()).settle()) == texts(second)


async def test_a_project_that_retrieves_later_has_all_its_documents(world: World) -> None:
    without = new_event(
        ProjectDeclared(project="shop", spec=spec().model_copy(update={"retrieval": None})), source="/test"
    )
    world.specs.append(without)
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    assert await process.settle() is None
    process.declared.tell(world.declare())
    assert texts(await process.settle()) == {"a.md": "One."}
    process.declared.tell(without)
    assert await process.indexer.settle("shop") is None


async def test_withdrawn_documents_are_in_no_newer_version_and_old_versions_go(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    for minute in range(1, 6):
        world.publish_record("b.md", f"Version {minute}.", minute)
        await process.settle()
    await process.take_back(DocumentWithdrawn(project="shop", document_id="b.md"), 9)
    assert texts(await process.settle()) == {"a.md": "One."}
    assert len(await world.store.folders("indexes/shop")) == 3 + 1, "three versions, and the table"
    assert len(await world.store.list("indexes/shop/versions")) == 1
    world.publish_record("b.md", "Back.", 10)
    assert texts(await process.settle()) == {"a.md": "One.", "b.md": "Back."}


def erasure(name: str = "b.md") -> ErasureRequested:
    return ErasureRequested(project="shop", erasure_id="e-1", source_id=name, requested_by="dpo")


async def carried_out(process: Process, event: Envelope[Any]) -> int:
    proof = await carry_out(
        event,
        process.indexer.erasures.asked_by(event),
        indexer=process.indexer,
        versions=process.versions,
        store=process.world.store,
        take_back=process.world.take_back,
    )
    assert (proof.holder, proof.erasure_id) == ("index", "e-1")
    return proof.records


async def _all_bytes(store: ObjectStore) -> Sequence[bytes]:
    return [await store.read(path) or b"" for path in await store.list("indexes")]


async def test_an_erasure_leaves_the_document_in_no_file_and_says_the_same_when_repeated(
    world: World,
) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    world.publish_record("b.md", "Two.")
    world.publish_record("b.md", "Three.", 1)
    process = await Process(world).start()
    await process.settle()
    world.publish_record("b.md", "Four.", 2)
    await process.settle()
    event = await process.take_back(erasure(), 3)
    assert await carried_out(process, event) == 2, "two records were in versions"
    assert not [data for data in await _all_bytes(world.store) if b"b.md" in data]
    assert texts(await process.settle()) == {"a.md": "One."}
    assert await carried_out(process, event) == 2
    assert await carried_out(await Process(world).start(), event) == 2
    world.publish_record("b.md", "Four.", 2)  # what happened before the erasure stays out
    assert texts(await process.settle()) == {"a.md": "One."}
    world.publish_record("b.md", "Five.", 4)
    assert texts(await process.settle()) == {"a.md": "One.", "b.md": "Five."}


async def test_an_erasure_of_what_only_the_table_names_takes_it_out_of_the_table(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    await process.settle()
    await process.take_back(DocumentWithdrawn(project="shop", document_id="b.md"), 0)
    world.publish_record("b.md", "Withdrawn from the start.")
    await process.settle()
    event = await process.take_back(erasure(), 3)
    assert await carried_out(process, event) == 0
    assert not [data for data in await _all_bytes(world.store) if b"b.md" in data]


async def test_an_erasure_where_no_version_can_be_built_deletes_the_newest_too(world: World) -> None:
    world.declare()
    world.publish_record("b.md", "Two.")
    process = await Process(world).start()
    await process.settle()
    broken = {"kind": "endpoint", "base_url": "http://evil/v1", "model": "m", "dimensions": 3}
    process.declared.tell(world.declare(embedding=broken))
    event = await process.take_back(erasure(), 3)
    assert await carried_out(process, event) == 1
    assert not [data for data in await _all_bytes(world.store) if b"b.md" in data]
    assert world.taken_back == ["shop"], "gateways have the version in memory"
    assert await carried_out(process, event) == 1
    assert world.taken_back == ["shop"]
    process.declared.tell(world.declare())
    world.publish_record("b.md", "Back.", 4)
    assert texts(await process.settle()) == {"b.md": "Back."}


async def test_an_erasure_where_no_version_can_be_built_keeps_a_newest_that_holds_nothing_of_it(
    world: World,
) -> None:
    world.declare()
    world.publish_record("b.md", "Published after the request.", 5)
    process = await Process(world).start()
    await process.settle()
    broken = {"kind": "endpoint", "base_url": "http://evil/v1", "model": "m", "dimensions": 3}
    process.declared.tell(world.declare(embedding=broken))
    event = await process.take_back(erasure(), 3)
    assert await carried_out(process, event) == 0
    assert world.taken_back == []
    assert texts(await process.versions.open(world.named[-1].manifest)) == {
        "b.md": "Published after the request."
    }


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("deleted", [0, 1, 4])
async def test_an_erasure_that_was_killed_in_mid_deletion_is_finished_when_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch, deleted: int
) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    world.publish_record("b.md", "Two.")
    process = await Process(world).start()
    await process.settle()
    event = await process.take_back(erasure(), 3)
    await process.settle()
    delete, left = ObjectStore.delete, deleted

    async def killed(store: ObjectStore, paths: Sequence[str]) -> None:
        nonlocal left
        for path in paths:
            if left == 0:
                raise Killed
            await delete(store, [path])
            left -= 1

    monkeypatch.setattr(ObjectStore, "delete", killed)
    with pytest.raises(Killed):
        await carried_out(process, event)
    monkeypatch.undo()
    assert await world.store.exists(world.named[0].manifest.path), "it goes last"
    again = await Process(world).start()
    assert await carried_out(again, event) == 1
    folders = await world.store.folders("indexes/shop")
    assert folders == sorted([world.named[-1].index_id, "versions"])
    assert texts(await again.settle()) == {"a.md": "One."}


async def test_what_a_killed_build_left_goes_with_the_next_version_and_with_an_erasure(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    await process.settle()
    left = "indexes/shop/ix-left/passages-0.parquet"
    await world.store.put(left, b"b.md")
    world.publish_record("a.md", "Two.", 1)
    await process.settle()
    assert not await world.store.exists(left)
    await world.store.put(left, b"b.md")
    await carried_out(process, await process.take_back(erasure(), 3))
    assert not await world.store.exists(left)


@pytest.mark.parametrize("name", ["manifest", "passages", "vectors", "lexical", "documents"])
async def test_a_damaged_file_is_built_again_and_hinders_no_erasure(world: World, name: str) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    world.publish_record("b.md", "Two.")
    await (await Process(world).start()).settle()
    first = world.named[-1].index_id

    async def damage() -> None:
        paths = await world.store.list(f"indexes/shop/{first}")
        (path,) = [path for path in paths if path.split("/")[-1].startswith(name)]
        await world.store.replace(path, (await world.store.read(path) or b"")[:-1])

    await damage()
    process = await Process(world).start()
    assert texts(await process.settle()) == {"a.md": "One.", "b.md": "Two."}
    world.publish_record("a.md", "Three.", 1)
    await process.settle()
    await damage()
    event = await process.take_back(erasure(), 3)
    await carried_out(process, event)
    assert await world.store.list(f"indexes/shop/{first}") == []
    assert texts(await process.settle()) == {"a.md": "Three."}


async def test_an_erasure_goes_by_when_it_happened_in_old_versions_too(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    world.publish_record(
        "b.md", "Two.", 5, occurred_at=NOON
    )  # published late: it happened before the request
    process = await Process(world).start()
    await process.settle()
    event = await process.take_back(erasure(), 3)
    assert await carried_out(process, event) == 1
    assert not [data for data in await _all_bytes(world.store) if b"b.md" in data]


async def test_a_stalled_process_that_has_the_last_word_is_corrected(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    await process.settle()
    stale = world.named[-1]
    world.publish_record("a.md", "Two.", 1)
    await process.settle()
    for event in world.named:  # they come back from the log, late
        read = decode_data(IndexVersioned, event.model_dump_json().encode())
        process.newest.tell(new_event(read, source="/test"))
    project = process.indexer.projects["shop"]
    assert (project.newest, project.changed_at, project.published) == (world.named[-1], None, [])
    process.newest.tell(new_event(stale, source="/test"))
    assert project.changed_at is not None
    assert texts(await process.settle()) == {"a.md": "Two."}
    assert (len(world.named), world.named[-1].previous) == (3, stale.index_id)


async def test_an_error_of_one_project_stops_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewheel_index.indexer.FIRST_WAIT_SECONDS", 0.01)
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    build, errors = process.indexer.build, [ArtifactConflict("taken")]

    async def failing(project: Project) -> None:
        if errors:
            raise errors.pop()
        await build(project)

    process.indexer.build = failing
    await process.indexer.start()
    async with asyncio.timeout(30):
        while not world.named or world.warnings.get("index shop") is not None:
            await asyncio.sleep(0.01)
    await process.indexer.stop()
