"""When versions are built, and from where on the log a process goes on."""

from __future__ import annotations

import asyncio

import pytest
from tunewheel_contracts.event import decode_data, new_event
from tunewheel_contracts.events.retrieval import IndexVersioned
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_index import building, indexer
from tunewheel_index.project import Project
from tunewheel_runtime.store import ArtifactConflict
from tunewheel_testing.waiting import until

from .world import UNREACHABLE, Process, World, spec, texts


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


async def test_a_spec_that_asks_otherwise_of_the_same_index_names_it_for_itself(world: World) -> None:
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    await process.settle()
    process.declared.tell(world.declare(top_k=7))
    await process.settle()
    await process.settle()
    first, second = world.named
    assert (second.index_id, second.manifest, second.changed) == (first.index_id, first.manifest, 0)
    assert second.retrieval_sha256 == spec(top_k=7).retrieval.sha256 != first.retrieval_sha256


async def test_a_worker_builds_by_itself_tells_troubles_and_tries_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewheel_index.indexer.FIRST_WAIT_SECONDS", 0.01)
    world.declare()
    world.publish_record("a.md", "One.")
    world.refuses = 2
    process = await Process(world).start()
    process.indexer.start({})
    async with asyncio.timeout(300):
        await until(lambda: world.named and world.warnings.get("index shop") is None)
        process.declared.tell(world.declare(embedding=UNREACHABLE))
        await until(lambda: "TUNEWHEEL_SPEC_HOSTS" in (world.warnings.get("index shop") or ""))
        process.declared.tell(world.declare(passage_tokens=16))
        await until(lambda: len(world.named) >= 2 and world.warnings.get("index shop") is None)
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
    build, hangs = process.indexer.builder.build, asyncio.Event()

    async def held(project: Project) -> None:
        if project.name == "slow":
            await hangs.wait()
        await build(project)

    process.indexer.builder.build = held
    process.indexer.start({})
    async with asyncio.timeout(60):
        await until(lambda: world.named)
        assert [one.project for one in world.named] == ["quick"]
        hangs.set()
        await until(lambda: len(world.named) >= 2)
    await process.indexer.stop()


async def test_an_error_of_one_project_stops_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewheel_index.indexer.FIRST_WAIT_SECONDS", 0.01)
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    build, errors = process.indexer.builder.build, [ArtifactConflict("taken")]

    async def failing(project: Project) -> None:
        if errors:
            raise errors.pop()
        await build(project)

    process.indexer.builder.build = failing
    process.indexer.start({})
    await until(lambda: world.named and world.warnings.get("index shop") is None)
    await process.indexer.stop()


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


async def until_named(world: World, count: int) -> None:
    await until(lambda: len(world.named) >= count)


@pytest.mark.parametrize("refused", [False, True])
async def test_a_quiet_project_does_not_have_the_next_process_read_what_others_published(
    world: World, monkeypatch: pytest.MonkeyPatch, refused: bool
) -> None:
    """Nor does a project whose versions cannot be built; its document is found on the log again."""
    for module in (building, indexer):
        monkeypatch.setattr(module, "FARTHEST_BEHIND", 5)
    world.declare()
    world.publish_record("a.md", "One.")
    process = await Process(world).start()
    await process.settle()
    if refused:
        process.declared.tell(world.declare(embedding=UNREACHABLE))
        world.publish_record("b.md", "Two.")
    process.indexer.start({})
    for number in range(4):
        world.publish_record(f"{number}.md", "Of another project.", project="busy")
    process.follow()
    await asyncio.sleep(0)
    assert len(world.named) == 1, "not far enough"
    for number in range(4):
        world.publish_record(f"{number}.md", "Of another project, changed.", project="busy")
    process.follow()
    await until_named(world, 2)
    await process.indexer.stop()
    first, again = world.named
    assert (again.index_id, again.manifest) == (first.index_id, first.manifest)
    world.declare()
    other = await Process(world).start()
    assert other.began == len(world.records)
    assert texts(await other.settle()) == {"a.md": "One."} | ({"b.md": "Two."} if refused else {})
    assert world.read_whole == 1 + refused
