"""Erasures: what is deleted, what is named instead, and what is needed for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope
from tunewheel_contracts.events.upstream import ErasureRequested
from tunewheel_embedding.static import StaticEmbedder, Vectors
from tunewheel_index.erasing import carry_out
from tunewheel_runtime.leadership import LeadershipLost
from tunewheel_runtime.store import ObjectStore

from .records import NOON
from .world import UNREACHABLE, Process, World, texts


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
    world.publish_record("b.md", "Before.")
    world.publish_record("b.md", "After.", 5)
    process = await Process(world).start()
    await process.settle()
    (first,), (one, before, after) = world.named, [record.data.record_id for record in world.records]
    known = [version.record_id for version in await process.versions.versions(first)]
    assert sorted(known) == sorted([one, before, after])
    event = await process.take_back(erasure(), 3)
    assert await carried_out(process, event) == 0
    assert (len(world.named), world.named[-1].manifest) == (2, first.manifest)
    known = [version.record_id for version in await process.versions.versions(world.named[-1])]
    assert sorted(known) == sorted([one, after])
    assert not await world.store.exists(first.versions.path)
    assert texts(await process.settle()) == {"a.md": "One.", "b.md": "After."}
    assert len(world.named) == 2, "nothing is left to do"


async def test_an_erasure_needs_no_embedder(world: World) -> None:
    """The spec names an endpoint that may not be asked; what is not erased can still be found."""
    world.declare()
    world.publish_record("a.md", "One.")
    world.publish_record("b.md", "Two.")
    process = await Process(world).start()
    await process.settle()
    process.declared.tell(world.declare(embedding=UNREACHABLE))
    event = await process.take_back(erasure(), 3)
    assert await carried_out(process, event) == 1
    assert not [data for data in await _all_bytes(world.store) if b"b.md" in data]
    assert texts(await process.versions.open(world.named[-1].manifest)) == {"a.md": "One."}
    assert world.taken_back == []
    count = len(world.named)
    assert await carried_out(await Process(world).start(), event) == 1
    assert len(world.named) == count


class Waiting:
    """The static embedder, which waits before it answers."""

    def __init__(self) -> None:
        self._inner = StaticEmbedder()
        self.name, self.dimensions = self._inner.name, self._inner.dimensions
        self.asked, self.goes_on = threading.Event(), threading.Event()
        self.batches = 0

    async def of(self, _: Any) -> Waiting:
        return self

    def units(self, texts: Sequence[str]) -> Vectors:
        self.batches += 1
        self.asked.set()
        assert self.goes_on.wait(300)
        return self._inner.units(texts)


@pytest.mark.parametrize("is_named", [False, True], ids=["the first version", "a later version"])
async def test_an_erasure_waits_for_no_build_and_what_was_begun_before_it_is_not_named(
    world: World, is_named: bool
) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    world.publish_record("b.md", "Two.")
    process = await Process(world).start()
    if is_named:
        await process.settle()
    embedder = process.indexer.builder.embedders = Waiting()  # type: ignore[assignment]
    world.publish_record("c.md", "Three.", 1)
    build = asyncio.create_task(process.settle())
    try:
        assert await asyncio.to_thread(embedder.asked.wait, 60)
        async with asyncio.timeout(60):
            event = await process.take_back(erasure(), 3)
            assert await carried_out(process, event) == int(is_named)
        assert not build.done()
        assert not [data for data in await _all_bytes(world.store) if b"b.md" in data]
        found = [texts(await process.versions.open(one.manifest)) for one in world.named[1:]]
        assert found == ([{"a.md": "One."}] if is_named else [])
    finally:
        embedder.goes_on.set()
    assert texts(await build) == {"a.md": "One.", "c.md": "Three."}
    assert not [data for data in await _all_bytes(world.store) if b"b.md" in data]


async def test_an_erasure_of_somebody_without_a_document_begins_no_build_anew(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    embedder = process.indexer.builder.embedders = Waiting()  # type: ignore[assignment]
    build = asyncio.create_task(process.settle())
    try:
        assert await asyncio.to_thread(embedder.asked.wait, 60)
        await carried_out(process, await process.take_back(erasure("a-customer"), 3))
    finally:
        embedder.goes_on.set()
    assert texts(await build) == {"a.md": "One."}
    assert embedder.batches == 1


@pytest.mark.parametrize("damaged", ["passages", "versions"])
async def test_where_the_newest_version_cannot_be_read_it_is_deleted_and_built_again(
    world: World, damaged: str
) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    world.publish_record("b.md", "Two.")
    await (await Process(world).start()).settle()
    process = await Process(world).start()
    for path in await world.store.list("indexes/shop"):
        if damaged in path:
            await world.store.replace(path, (await world.store.read(path) or b"")[:-1])
    event = await process.take_back(erasure(), 3)
    assert await carried_out(process, event) == 1
    assert world.taken_back == ["shop"], "gateways have the version in memory"
    assert await world.store.list("indexes") == []
    assert await carried_out(process, event) == 1
    assert world.taken_back == ["shop"]
    assert texts(await process.settle()) == {"a.md": "One."}


async def test_an_erasure_keeps_what_was_published_after_the_request(world: World) -> None:
    world.declare()
    world.publish_record("b.md", "Published after the request.", 5)
    process = await Process(world).start()
    await process.settle()
    event = await process.take_back(erasure(), 3)
    assert await carried_out(process, event) == 0
    assert len(world.named) == 1
    assert texts(await process.versions.open(world.named[-1].manifest)) == {
        "b.md": "Published after the request."
    }


async def test_a_process_that_is_not_the_active_one_any_more_deletes_nothing(world: World) -> None:
    world.declare()
    world.publish_record("b.md", "Two.")
    process = await Process(world).start()
    await process.settle()
    stored = await world.store.list("indexes")
    event = await process.take_back(erasure(), 3)
    world.is_active = False
    with pytest.raises(LeadershipLost):
        await carried_out(process, event)
    assert set(stored) <= set(await world.store.list("indexes"))


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
